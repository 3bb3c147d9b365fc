"""Checkpoints, EMA weights, and preemption."""
