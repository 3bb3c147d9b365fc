"""Rendered jersey numbers."""
