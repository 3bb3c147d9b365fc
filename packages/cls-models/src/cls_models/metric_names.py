"""Names of the logged metrics. Importing this module does not load PyTorch."""

VALIDATION_METRICS: tuple[str, ...] = ("valid_loss", "valid_top1", "valid_top5", "valid_macro_f1")
"""Metrics that a `ClassificationModule` logs after every validation."""
