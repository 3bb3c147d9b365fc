"""Converters from class folders, CSV files, and Roboflow exports to JSONL annotations."""
