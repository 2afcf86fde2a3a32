"""Many priors on many videos."""
