"""Stages of a run: fit, evaluate, calibrate, robustness, and summary."""
