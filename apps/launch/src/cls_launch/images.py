"""Resolve an image to its digest, and read the commit that it was built from."""

import re
from dataclasses import dataclass

from cls_launch.errors import LaunchError, LaunchFailedError
from cls_launch.registry import Registry

COMMIT_LABEL = "org.opencontainers.image.revision"

_DOCKER_HUB = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT_COMMIT = 7


@dataclass(frozen=True, slots=True)
class ImageName:
    """The name of an image, taken apart.

    Attributes:
        registry: Host, with its port if there is one.
        repository: Path in the registry.
        tag: The tag, which is `latest` if there is neither tag nor digest.
        digest: `sha256:…`, or None.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> "ImageName":
        """Take apart `REGISTRY/REPOSITORY:TAG` or `REGISTRY/REPOSITORY@sha256:…`.

        Raises:
            LaunchError: It is another text.
        """
        name, at_sign, digest = text.partition("@")
        first, slash, rest = name.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost")
        registry, path = (first, rest) if is_host else (_DOCKER_HUB, name)
        repository, colon, tag = path.partition(":")
        is_valid = (
            _REPOSITORY.fullmatch(repository)
            and (not colon or _TAG.fullmatch(tag))
            and (not at_sign or _DIGEST.fullmatch(digest))
        )
        if not is_valid:
            raise LaunchError(
                f"image: expected REGISTRY/REPOSITORY:TAG, or REGISTRY/REPOSITORY@sha256:DIGEST "
                f"with 64 hexadecimal digits, got {text!r:.300}"
            )
        if not at_sign and not colon:
            tag = "latest"
        return cls(registry, repository, tag or None, digest or None)

    def pin(self, digest: str) -> str:
        """Return the reference with a digest."""
        return f"{self.registry}/{self.repository}@{digest}"


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image that cannot change.

    Attributes:
        reference: `registry/repository@sha256:…`.
        commit: The commit of its label; None if it has none or cannot be read.
        problem: Why the label could not be read, or None.
    """

    reference: str
    commit: str | None
    problem: str | None = None


def resolve_image(text: str) -> ResolvedImage:
    """Resolve a tag to a digest, and read the label with the commit.

    With a digest, a registry that cannot be read is not an error.

    Raises:
        LaunchError: The image does not exist, or access is denied.
        LaunchFailedError: The registry cannot be reached.
    """
    name = ImageName.parse(text)
    registry = Registry(name.registry, name.repository)
    if name.digest is not None:
        try:
            labels = registry.read_labels(name.digest)
        except (LaunchError, LaunchFailedError) as error:
            return ResolvedImage(name.pin(name.digest), None, str(error).partition(";")[0])
        return ResolvedImage(name.pin(name.digest), labels.get(COMMIT_LABEL))
    assert name.tag is not None
    digest = registry.resolve(name.tag)
    labels = registry.read_labels(digest)
    return ResolvedImage(name.pin(digest), labels.get(COMMIT_LABEL))


def check_commit(image: ResolvedImage, text: str, commit: str) -> None:
    """Check that an image was built from a commit, as far as its label or tag says so.

    Args:
        image: The resolved image.
        text: The image as it was given.
        commit: The commit of the checkout, perhaps with `-dirty`.

    Raises:
        LaunchError: It was built from another commit.
    """
    clean = commit.removesuffix("-dirty")
    hint = "build the image from this commit, or set allow_other_commit=true"
    if image.commit is not None:
        if image.commit.removesuffix("-dirty") != clean:
            raise LaunchError(
                f"image: {text} was built from commit {image.commit:.60}, and the checkout is at "
                f"{clean}; {hint}"
            )
        return
    tag = ImageName.parse(text).tag
    if tag is not None and clean[:_SHORT_COMMIT] not in tag:
        raise LaunchError(
            f"image: {text} has no label {COMMIT_LABEL}, and its tag does not name the commit "
            f"{clean}; {hint}"
        )
