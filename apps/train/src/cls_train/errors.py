"""Errors that a user can fix."""


class ConfigError(ValueError):
    """An invalid setting. The message names its key path, the value, and what to do."""


class IdentityError(RuntimeError):
    """An evaluated or exported model that does not reproduce the metric of its checkpoint."""


class RunError(RuntimeError):
    """A run that cannot be started, resumed, or evaluated. The command exits with 2."""


class RunFailedError(RunError):
    """Work that failed on correct input, such as a disk that is full. The command exits with 1."""
