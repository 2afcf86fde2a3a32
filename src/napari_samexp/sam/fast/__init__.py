"""The same results in less time: chunked attention, mixed precision, folding, CUDA graphs."""
