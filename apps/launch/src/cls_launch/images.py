"""Resolve an image to its digest, and compare its commit with that of the checkout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cls_export.contract.errors import MissingExtraError, RemoteBundleError, TransferError
from cls_export.sharing.references import Reference
from cls_launch.errors import LaunchError, LaunchFailedError

COMMIT_LABEL = "org.opencontainers.image.revision"

_DOCKER_HUB = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT_COMMIT = 7
_FORMS = "REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST"


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
            raise LaunchError(_describe_problem(text, repository, digest if at_sign else None))
        if not slash:
            raise LaunchError(
                f"image: {text!r:.300} has no registry; push it, and name it like "
                f"us-central1-docker.pkg.dev/PROJECT/cls/{text} (see docs/images.md)"
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
        reference: `registry/repository@sha256:…`, or `sha256:…` for one on this machine.
        labels: Its labels; None if the registry cannot be read.
        problem: Why it cannot be read, or None.
    """

    reference: str
    labels: Mapping[str, str] | None
    problem: str | None = None


def resolve_image(text: str) -> ResolvedImage:
    """Resolve a tag to a digest, and read the labels.

    With a digest, a registry that cannot be read is not an error.

    Raises:
        LaunchError: The image does not exist, or access is denied.
        LaunchFailedError: The registry cannot be reached.
    """
    name = ImageName.parse(text)
    tag = None if name.digest is not None else name.tag
    reference = Reference("oci", name.registry, name.repository, tag=tag, digest=name.digest)
    try:
        from cls_export.sharing.images import read_image

        image = read_image(reference)
    except MissingExtraError as error:
        raise LaunchError(
            f"image: {error.name or 'httpx2'} is not installed; run: pip install "
            "'cls-export[registry]'"
        ) from error
    except (RemoteBundleError, TransferError) as error:
        if name.digest is not None:
            return ResolvedImage(name.pin(name.digest), None, str(error))
        is_wrong = isinstance(error, RemoteBundleError)
        raise (LaunchError if is_wrong else LaunchFailedError)(f"image: {error}") from error
    return ResolvedImage(name.pin(image.digest), image.labels)


def check_commit(image: ResolvedImage, text: str, commit: str) -> str | None:
    """Check that an image was built from a commit, as far as its label or tag says so.

    Args:
        image: The resolved image.
        text: The image as it was given.
        commit: The commit of the checkout, perhaps with `-dirty`.

    Returns:
        Why the commit could not be checked; None if it was.

    Raises:
        LaunchError: It was built from another commit.
    """
    if image.labels is None:
        return image.problem
    clean = commit.removesuffix("-dirty")
    hint = "build the image from this commit, or set allow_other_commit=true"
    built_from = image.labels.get(COMMIT_LABEL)
    if built_from:
        if built_from.removesuffix("-dirty") != clean:
            raise LaunchError(
                f"image: {text} was built from commit {built_from:.60}, and the checkout is at "
                f"{clean}; {hint}"
            )
        return None
    _, _, tag = text.partition("@")[0].rpartition(":")
    if "@" not in text and clean[:_SHORT_COMMIT] not in tag:
        raise LaunchError(
            f"image: {text} has no label {COMMIT_LABEL}, and its tag does not name the commit "
            f"{clean}; {hint}"
        )
    return f"it has no label {COMMIT_LABEL}" if "@" in text else None


def _describe_problem(text: str, repository: str, digest: str | None) -> str:
    problem = f"image: {text!r:.300} is not {_FORMS}"
    if repository != repository.lower():
        return f"{problem}: the repository {repository!r:.200} must be in lower case"
    if digest is not None and _DIGEST.fullmatch(digest) is None:
        return f"{problem}: a digest is sha256: and 64 hexadecimal digits, got {digest!r:.100}"
    return f"{problem}, such as us-central1-docker.pkg.dev/PROJECT/cls/cls-train:v1"
