"""Errors that a user can fix."""


class ConfigError(ValueError):
    """An invalid setting. The message names its key path, the value, and what to do."""


class IdentityError(RuntimeError):
    """Weights that do not reach the metric that was logged for them in training."""


class RunError(RuntimeError):
    """A run that cannot be started, resumed, or evaluated."""
