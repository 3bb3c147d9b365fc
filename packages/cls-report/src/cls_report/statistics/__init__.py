"""Metrics with confidence intervals, and comparisons of runs."""
