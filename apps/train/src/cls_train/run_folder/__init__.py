"""The folder of a run: its name, its lock, its checkpoints, and how it is resumed."""
