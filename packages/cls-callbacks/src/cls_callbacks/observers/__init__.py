"""Callbacks that record and plot a training run."""
