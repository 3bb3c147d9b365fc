"""Reports of one run, of two runs, and of cross-validation folds."""
