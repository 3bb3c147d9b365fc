"""Pull a bundle from a registry or from object storage, and verify it before it appears."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from cls_export.bundle.golden import GoldenSet, verify_bundle
from cls_export.bundle.staging import staged_folder
from cls_export.contract.bundle_layout import CARD_FILE, GOLDEN_FOLDER
from cls_export.contract.errors import BundleError, RemoteBundleError, VerificationError
from cls_export.sharing.manifest import GOLDEN_LIST, REQUIRED_FILES, Blob, parse_manifest
from cls_export.sharing.references import HUB_SCHEME, Reference, parse_reference
from cls_export.sharing.store import BundleStore, open_store, with_retries


def pull_bundle(source: str, folder: str | os.PathLike[str]) -> str:
    """Fetch a bundle into a folder, check everything, and return its digest.

    The digest of the manifest and of each file is computed here and compared, names and sizes are
    checked before anything is fetched, and the bundle runs its self-test. Only then does it appear
    at `folder`, in one step. An older bundle there is replaced; on an error it stays.

    Args:
        source: A reference with a digest (or tag), such as `oci://registry/repository@sha256:…`.
        folder: The folder of the bundle.

    Returns:
        `sha256:` and 64 digits; for the Hugging Face Hub, the commit.

    Raises:
        BundleError: What was fetched is damaged or not a bundle, or `folder` holds something else.
        VerificationError: This machine computes other predictions than training did.
        RemoteBundleError: The reference is invalid, does not exist, or access is denied.
        TransferError: The network or the server failed.
        MissingExtraError: The package for this kind of reference is not installed.
    """
    reference = parse_reference(source)
    if reference.digest is None and reference.tag is None:
        raise RemoteBundleError(
            f"{source}: which bundle? Expected {reference.name}@sha256:DIGEST or "
            f"{reference.name}:TAG"
        )
    _refuse_current_folder(Path(folder))
    with staged_folder(folder) as draft:
        if reference.scheme == HUB_SCHEME:
            from cls_export.sharing.hub import pull_from_hub

            digest = pull_from_hub(reference, draft)
        else:
            with closing(open_store(reference)) as store:
                digest = _fetch(store, reference, draft)
        _verify(draft, reference, Path(folder))
    return digest


def _refuse_current_folder(folder: Path) -> None:
    try:
        current = Path.cwd()
    except FileNotFoundError:  # somebody has deleted it
        return
    if current.is_relative_to(os.path.realpath(folder)):
        # Whoever is in the folder would stay in the deleted one.
        raise BundleError(
            f"{folder} is the current folder, or contains it, and would be replaced; change to "
            "another folder"
        )


def _fetch(store: BundleStore, reference: Reference, draft: Path) -> str:
    """Fetch all files into the draft, and return the digest of the manifest."""
    version = reference.digest or reference.tag
    assert version is not None
    content = with_retries(partial(store.get_manifest, version))
    digest = Blob.of(content).digest
    if reference.digest is not None and digest != reference.digest:
        raise BundleError(
            f"{reference.name} returned another manifest than was asked for: its digest is "
            f"{digest}, expected {reference.digest}. Nothing was written"
        )

    files = parse_manifest(content, str(reference))
    _fetch_file(store, reference, draft, GOLDEN_LIST, files[GOLDEN_LIST])
    check_listed(draft, list(files), str(reference))
    for name, blob in files.items():
        if name != GOLDEN_LIST:
            _fetch_file(store, reference, draft, name, blob)
    return digest


def _fetch_file(
    store: BundleStore, reference: Reference, draft: Path, name: str, blob: Blob
) -> None:
    def fetch() -> Blob:
        with closing(store.read_blob(blob)) as chunks:
            return write_file(draft / name, chunks, blob.size)

    if with_retries(fetch) != blob:
        raise BundleError(
            f"{reference}: {name} is damaged or was changed: its SHA-256 is not {blob.digest}. "
            "Nothing was written"
        )


def write_file(path: Path, chunks: Iterable[bytes], max_bytes: int) -> Blob:
    """Write chunks to a file until there are more than `max_bytes`, and describe what arrived."""
    path.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("wb") as stream:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    break
                digest.update(chunk)
                stream.write(chunk)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk has no name
    return Blob(f"sha256:{digest.hexdigest()}", size)


def check_listed(draft: Path, names: list[str], source: str) -> None:
    """Refuse files in golden/ that golden.json, which is in the draft already, does not list."""
    try:
        golden = GoldenSet.load(draft / GOLDEN_LIST)
    except BundleError as error:
        raise BundleError(_without_draft(str(error), draft, source)) from error
    images = {f"{GOLDEN_FOLDER}/{case.file}" for case in golden.cases}
    expected = images | {*REQUIRED_FILES, CARD_FILE}
    unknown = sorted(set(names) - expected)
    if unknown:
        raise BundleError(f"{source} contains {unknown[0]!r}, which {GOLDEN_LIST} does not list")
    missing = sorted(images - set(names))
    if missing:
        raise BundleError(f"{source}: {missing[0]} is missing, which {GOLDEN_LIST} lists")


def _verify(draft: Path, reference: Reference, folder: Path) -> None:
    try:
        report = verify_bundle(draft)
    except BundleError as error:
        problem = _without_draft(str(error), draft, str(reference))
        raise BundleError(f"{problem}. {folder} was not written") from error
    if not report.passed:
        failure = _without_draft(report.failures[0], draft, str(reference))
        raise VerificationError(
            f"{reference} fails its self-test on this machine: {failure}. {folder} was not written"
        )


def _without_draft(text: str, draft: Path, source: str) -> str:
    """Name the source instead of the draft, which is deleted."""
    return text.replace(f"{draft}/", f"{source}: ").replace(str(draft), source)
