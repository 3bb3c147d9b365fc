"""Fetch `data.root=gs://…` and `data.quarantine=gs://…` into a folder of this machine."""

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


def fetch_remote_data(config: RunConfig) -> RunConfig:
    """Fetch what `data.root` and `data.quarantine` name by URL.

    Files of the root that were fetched before are kept if their size and version are the same.
    Local paths depend on the URLs alone, below the environment variable `CLS_DATA_CACHE` or the
    home folder.

    Returns:
        The configuration with local paths.

    Raises:
        ConfigError: A URL is wrong or empty, or a package for it is missing.
        RunFailedError: A file cannot be fetched or written.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE) or _DEFAULT_CACHE).expanduser()
    data = dict(config.data)
    for key, fetch in (("root", _fetch_folder), ("quarantine", _fetch_file)):
        url = data.get(key)
        if not isinstance(url, str) or "://" not in url:
            continue
        path = cache / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        try:
            cache.mkdir(parents=True, exist_ok=True)
            fetch(url, path)
        except ConfigError as error:
            raise ConfigError(f"data.{key}: {error}") from error
        except DataError as error:
            raise RunFailedError(f"data.{key}: {error}") from error
        except OSError as error:
            raise RunFailedError(
                f"data.{key}: {path} cannot be written ({error.strerror}); set {CACHE_VARIABLE} to "
                "a folder with enough space"
            ) from error
        data[key] = str(path)
    return config.model_copy(update={"data": data})


def _fetch_folder(url: str, folder: Path) -> None:
    try:
        storage = Storage.open(url)
        found = storage.list_files()
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not found:
        raise ConfigError(f"{url} has no files; check the bucket and the folder")
    with FileLock(f"{folder}.lock"):
        _synchronize(storage, found, folder)


def _fetch_file(url: str, file: Path) -> None:
    parent, _, name = url.rpartition("/")
    try:
        storage = Storage.open(parent)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not name or storage.size(name) is None:
        raise ConfigError(f"{url} does not exist; check the bucket and the name")
    write_atomically(file, storage.read(name))


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
