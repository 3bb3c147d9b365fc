"""Precision, memory formats, CUDA graphs, and compilation."""
