"""Keep a copy of a run in object storage, or in a folder that outlives the machine."""
