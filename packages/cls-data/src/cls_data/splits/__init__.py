"""Stratified, group-aware splits and folds."""
