"""Train an image classifier from a Hydra configuration, evaluate it, and export it."""
