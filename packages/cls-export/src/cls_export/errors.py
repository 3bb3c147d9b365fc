"""What a caller of this package may want to catch."""

from pydantic import ValidationError


class ImageError(ValueError):
    """An image that cannot become model input: unreadable, truncated, too large, or of a wrong shape or dtype."""


class BundleError(ValueError):
    """A bundle that cannot be trusted: a part is missing, broken, or contradicts another part."""


def in_one_line(error: ValidationError) -> str:
    """Return what is wrong with which key."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'the whole file'}: {item['msg']}" for item in error.errors())
