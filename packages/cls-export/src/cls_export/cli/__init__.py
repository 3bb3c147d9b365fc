"""The `cls-export` command."""
