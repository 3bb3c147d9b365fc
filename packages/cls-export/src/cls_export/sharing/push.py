"""Push a bundle to a registry or to object storage."""

import os
from contextlib import closing
from functools import partial
from pathlib import Path

from cls_export.bundle.golden import GoldenSet, verify_bundle
from cls_export.contract.bundle_layout import CARD_FILE, GOLDEN_FOLDER, LABELS_FILE, MODEL_FILE
from cls_export.contract.errors import BundleError, RemoteBundleError, VerificationError
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.bundle_files import Bundle, read_unless_replaced
from cls_export.sharing.manifest import (
    EMPTY_CONFIG,
    REQUIRED_FILES,
    Blob,
    build_manifest,
    check_files,
    get_size_limit,
)
from cls_export.sharing.references import HUB_SCHEME, parse_reference
from cls_export.sharing.store import open_store, with_retries


def push_bundle(bundle: str | os.PathLike[str], target: str) -> str:
    """Verify a bundle, store its files, and return the digest that names exactly this bundle.

    Pushing the same bundle again gives the same digest, and transfers nothing.

    Args:
        bundle: The folder of the bundle.
        target: A reference with a tag, such as `oci://registry/repository:tag`; or, for the
            Hugging Face Hub, `hf://owner/repository`, or with a branch as `@branch`.

    Returns:
        `sha256:` and 64 digits; for the hub, the commit.

    Raises:
        BundleError: The bundle is incomplete, damaged, or changes while it is read.
        VerificationError: This machine computes other predictions than training did.
        RemoteBundleError: The reference is invalid, does not exist, or access is denied.
        TransferError: The network or the server failed.
        MissingExtraError: The package for this kind of reference is not installed.
    """
    reference = parse_reference(target)
    if reference.digest is not None or reference.tag is None:
        expected = f"{reference.name}{'' if reference.scheme == HUB_SCHEME else ':TAG'}"
        raise RemoteBundleError(f"{target}: a bundle is pushed to a tag; expected {expected}")

    folder = Path(bundle)
    if reference.scheme == HUB_SCHEME:
        from cls_export.sharing.hub import push_to_hub

        files = read_unless_replaced(folder, lambda: _describe_verified(folder))
        return push_to_hub(folder, list(files), reference)

    with closing(open_store(reference)) as store:  # a missing package is reported first
        files = read_unless_replaced(folder, lambda: _describe_verified(folder))
        for name, blob in sorted(files.items(), key=lambda item: item[1].size):
            if not with_retries(partial(store.has_blob, blob)):
                with_retries(partial(store.upload_blob, blob, folder / name))
        config = Blob.of(EMPTY_CONFIG)
        if not with_retries(partial(store.has_blob, config)):
            with_retries(partial(store.upload_blob, config, EMPTY_CONFIG))

        manifest = build_manifest(files, _build_annotations(folder))
        with_retries(partial(store.put_manifest, manifest, reference.tag))
    return Blob.of(manifest).digest


def _describe_verified(folder: Path) -> dict[str, Blob]:
    """Verify a bundle, and return its files by name."""
    files = _describe_files(folder)
    report = verify_bundle(folder)
    if not report.passed:
        raise VerificationError(
            f"{folder} was not pushed, because it fails its self-test: {report.failures[0]}. "
            f"For all failures: cls-export verify {folder}"
        )
    labels = LabelsMapping.load(folder / LABELS_FILE)
    stated = f"sha256:{labels.model_sha256}"
    if labels.model_sha256 is not None and stated != files[MODEL_FILE].digest:
        raise BundleError(f"{folder} was replaced while it was read; push it again")
    return files


def _describe_files(folder: Path) -> dict[str, Blob]:
    bundle = Bundle.locate(folder)
    golden = GoldenSet.load_of_bundle(bundle)
    images = [f"{GOLDEN_FOLDER}/{case.file}" for case in golden.cases]
    card = [CARD_FILE] if _has_card(folder) else []

    files = {}
    for name in [*REQUIRED_FILES, *images, *card]:
        files[name] = Blob.of_file(folder / name, get_size_limit(name))
    check_files({name: blob.size for name, blob in files.items()}, str(folder))
    return files


def _has_card(folder: Path) -> bool:
    path = folder / CARD_FILE
    is_checked = LabelsMapping.load(folder / LABELS_FILE).card_sha256 is not None
    if path.is_symlink() and not is_checked:  # it could be any file of this machine
        raise BundleError(
            f"{path} is a link, and {LABELS_FILE} does not state its SHA-256. Replace the link by "
            "the file, or delete it"
        )
    return path.exists()


def _build_annotations(folder: Path) -> dict[str, str]:
    """Return what a registry shows: the run and the commit, as far as they are known."""
    origin = LabelsMapping.load(folder / LABELS_FILE).provenance
    annotations = {}
    if origin.run is not None:
        annotations["org.opencontainers.image.title"] = origin.run
    if origin.code_commit is not None:
        annotations["org.opencontainers.image.revision"] = origin.code_commit
    return annotations
