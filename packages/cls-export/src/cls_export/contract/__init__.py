"""The contract that training and serving share: preprocessing, labels mapping, layouts, files."""
