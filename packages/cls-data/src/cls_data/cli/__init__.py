"""The `cls-data` command."""
