"""How the starter was made: scenes, the trainer, the evaluation. Run with ``python -m training.NAME``."""
