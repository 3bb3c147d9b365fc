"""What a user can act on."""


class ReportError(ValueError):
    """A run that no report can be made of, or runs that cannot be compared. The message says why and what to do."""
