"""Synthetic images of jersey numbers."""
