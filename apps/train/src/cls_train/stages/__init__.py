"""Stages of a run: fit, evaluate, calibrate, and robustness."""
