"""Training rows in shards on object storage, for data that is larger than the local disk."""
