"""What a caller of this package may want to catch."""


class ImageError(ValueError):
    """An image that cannot become model input: unreadable, truncated, too large, or of a wrong shape or dtype."""


class BundleError(ValueError):
    """A bundle that cannot be trusted: a part is missing, broken, or contradicts another part."""
