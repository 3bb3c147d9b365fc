"""Fetch the images and annotations of `data.root=gs://…` into a folder of this machine."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock
from loguru import logger

from cls_data import DataError
from cls_data.shards.storage import Storage
from cls_export.contract.files import write_atomically
from cls_train.composition.config import RunConfig
from cls_train.errors import ConfigError, RunFailedError

CACHE_VARIABLE = "CLS_DATA_CACHE"

_DEFAULT_CACHE = "~/.cache/cls-train/data"
_THREADS = 16
_VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "mtime", "LastModified", "created")
"""What file systems call the version of a file."""

Versions = dict[str, str]
"""Name of a file → its size and version."""


def fetch_data_root(config: RunConfig) -> RunConfig:
    """Fetch the files of `data.root`, and return the configuration with the local folder.

    Files that were fetched before are kept if their size and version are the same. The folder
    depends on the URL alone, below the environment variable `CLS_DATA_CACHE` or the home folder.

    Raises:
        ConfigError: The URL is wrong or empty, or a package for it is missing.
        RunFailedError: A file cannot be fetched or written.
    """
    url = str(config.data["root"])
    cache = Path(os.environ.get(CACHE_VARIABLE) or _DEFAULT_CACHE).expanduser()
    folder = cache / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    try:
        storage = Storage.open(url)
        found = storage.list_files()
    except DataError as error:
        raise ConfigError(f"data.root: {error}") from error
    if not found:
        raise ConfigError(f"data.root: {url} has no files; check the bucket and the folder")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            _synchronize(storage, found, folder)
    except DataError as error:
        raise RunFailedError(f"data.root: {error}") from error
    except OSError as error:
        raise RunFailedError(
            f"data.root: {folder} cannot be written ({error.strerror}); set {CACHE_VARIABLE} to a "
            "folder with enough space"
        ) from error
    return config.model_copy(update={"data": {**config.data, "root": str(folder)}})


def _synchronize(storage: Storage, found: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Make a folder equal to the remote one."""
    record = Path(f"{folder}.json")
    versions = {name: _describe_version(details) for name, details in found.items()}
    fetched = _read_record(record)
    missing = []
    for name, version in versions.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{storage.url}: the name {name!r:.200} leaves the folder")
        if fetched.get(name) != version or not (folder / name).is_file():
            missing.append(name)
    gone = fetched.keys() - versions.keys()
    if not missing and not gone:
        return

    record.unlink(missing_ok=True)
    logger.info("fetching {} files of {} to {}", len(missing), storage.url, folder)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    for parent in {(folder / name).parent for name in missing}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda name: storage.download(name, folder / name), missing):
            pass
    write_atomically(record, json.dumps(versions).encode())


def _describe_version(details: Mapping[str, Any]) -> str:
    version = next((details[key] for key in _VERSIONS if details.get(key)), "")
    return f"{details.get('size')} {version}"


def _read_record(record: Path) -> Versions:
    try:
        content: Versions = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return content
