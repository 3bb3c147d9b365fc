"""Samplers, loaders, and device prefetching."""
