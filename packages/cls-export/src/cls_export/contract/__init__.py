"""Shared contract of training and serving: preprocessing, labels mapping, layouts, and files."""
