"""Errors of a launch that a user can fix."""


class LaunchError(ValueError):
    """Wrong input, such as a name that is taken. The message says what to do. Exit code 2."""


class LaunchFailedError(RuntimeError):
    """A service that refused or failed on correct input, such as a quota. Exit code 1."""
