"""Learning rate and batch size finders."""
