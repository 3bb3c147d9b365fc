"""Errors that a caller may want to catch."""


class ReportError(ValueError):
    """A run that cannot be reported, or runs that cannot be compared."""


class CalibrationError(ValueError):
    """Predictions that no calibration or threshold can be fitted to."""
