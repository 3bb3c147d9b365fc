"""Bundles in a model repository of the Hugging Face Hub.

The hub names versions by Git commit, not by a digest of the content. So a pull trusts the hub to
return the files of a commit; beyond that, it checks the SHA-256 that the hub states for large
files, and everything that `cls-export verify` checks.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cls_export.contract.errors import (
    BundleError,
    MissingExtraError,
    RemoteBundleError,
    TransferError,
)
from cls_export.sharing.manifest import Blob, check_files
from cls_export.sharing.references import Reference
from cls_export.sharing.store import with_retries

try:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError
except ImportError as error:
    raise MissingExtraError(
        f'{error.name} is not installed. For hf:// references: pip install "cls-export[hf]"'
    ) from error

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a failure is one message, ours

_IGNORED_FILES = {".gitattributes"}
"""The hub writes it into every repository."""
_MAX_REASON = 300


def push_to_hub(folder: Path, names: Sequence[str], reference: Reference) -> str:
    """Commit the files of a bundle to an existing repository, and return the commit.

    Raises the errors of `push_bundle`.
    """
    with _described(reference):
        commit = huggingface_hub.HfApi().upload_folder(
            repo_id=_repository(reference),
            folder_path=folder,
            allow_patterns=list(names),
            delete_patterns=["golden/*"],  # of an older bundle
            revision=reference.tag,
            commit_message="Upload a bundle of cls-export",
        )
    return str(commit.oid)


def pull_from_hub(reference: Reference, draft: Path) -> str:
    """Fetch the files of a bundle into a draft, and return the commit.

    Raises the errors of `pull_bundle`.
    """
    from cls_export.sharing.manifest import GOLDEN_LIST
    from cls_export.sharing.pull import check_listed

    with _described(reference):
        info = huggingface_hub.HfApi().model_info(
            _repository(reference),
            revision=reference.digest or reference.tag,
            files_metadata=True,
        )
    commit = str(info.sha)
    if reference.digest not in (None, commit):
        raise BundleError(
            f"{reference}: the hub returned the commit {commit!r}. Nothing was written"
        )

    files = {each.rfilename: each for each in info.siblings or []}
    for name in _IGNORED_FILES:
        files.pop(name, None)
    check_files({name: int(file.size or 0) for name, file in files.items()}, str(reference))

    for name in sorted(files, key=lambda each: each != GOLDEN_LIST):
        _fetch(reference, commit, files[name], draft)
        if name == GOLDEN_LIST:
            check_listed(draft, list(files), str(reference))
    return commit


def _fetch(reference: Reference, commit: str, file: Any, draft: Path) -> None:
    from cls_export.sharing.pull import write_file

    size = int(file.size or 0)

    def fetch() -> Blob:
        with closing(_read(reference, commit, file.rfilename)) as chunks:
            return write_file(draft / file.rfilename, chunks, size)

    found = with_retries(fetch)
    stated = f"sha256:{file.lfs.sha256}" if file.lfs is not None else found.digest
    if found != Blob(stated, size):
        raise BundleError(
            f"{reference}: {file.rfilename} is damaged or was changed: its size or SHA-256 is not "
            "the one that the hub states. Nothing was written"
        )


def _read(reference: Reference, commit: str, name: str) -> Generator[bytes, None, None]:
    url = huggingface_hub.hf_hub_url(_repository(reference), name, revision=commit)
    headers = {"Accept-Encoding": "identity", "User-Agent": "cls-export"}
    token = huggingface_hub.get_token()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    client = huggingface_hub.get_session()
    with (
        _described(reference),
        client.stream("GET", url, headers=headers, follow_redirects=True) as response,
    ):
        huggingface_hub.hf_raise_for_status(response)
        yield from response.iter_raw()


def _repository(reference: Reference) -> str:
    return f"{reference.host}/{reference.path}"


@contextmanager
def _described(reference: Reference) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        reason = f"HTTP {status}"
        if status in (401, 403, 404):
            raise RemoteBundleError(
                f"{reference} does not exist, or access is denied ({reason}). Create the "
                "repository at the hub, check the revision, or log in: hf auth login"
            ) from error
        raise TransferError(
            f"{reference}: the hub failed ({reason}). Try again later",
            is_temporary=status == 429 or status >= 500,
        ) from error
    except (BundleError, RemoteBundleError):
        raise
    except OSError as error:
        if error.errno is not None and error.filename is not None:  # a local file
            raise
        raise _network_error(reference, error) from error
    except Exception as error:  # httpx2, and what huggingface_hub raises without a response
        raise _network_error(reference, error) from error


def _network_error(reference: Reference, error: Exception) -> TransferError:
    reason = (str(error) or type(error).__name__).partition("\n")[0][:_MAX_REASON]
    return TransferError(f"{reference}: {reason}. Check the network")
