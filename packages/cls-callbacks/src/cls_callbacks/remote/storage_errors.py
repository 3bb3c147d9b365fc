"""Describe errors of remote storage: the URL, the reason, and what to do."""

import errno
import re

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""The package of a protocol, and the extra that installs it."""

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "run: gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}

_ALIASES = {"s3a": "s3", "gcs": "gs"}

_LOCAL_ERRNOS = (errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOSPC)

_DENIED_NAMES = (
    "DefaultCredentialsError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
)
"""Errors of botocore and google-auth, which need not be installed."""

_DENIED_CODES = (401, 403, "401", "403")


class RemoteStorageError(RuntimeError):
    """Remote storage cannot be used; the message has the URL, the reason, and what to do.

    Attributes:
        is_permanent: Whether trying again cannot help, such as for a missing bucket.
    """

    def __init__(self, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


def describe_storage_error(error: Exception, url: str) -> RemoteStorageError:
    """Turn an error of fsspec, or of the package for a protocol, into one that can be shown."""
    reason = _get_reason(error)
    if isinstance(error, ImportError):
        return RemoteStorageError(_describe_missing_package(error, url), is_permanent=True)
    if isinstance(error, NotADirectoryError):
        return RemoteStorageError(
            f"{url} is not a folder. Choose another one as run.remote", is_permanent=True
        )
    if isinstance(error, FileNotFoundError):
        what = "bucket" if is_bucket(url) else "folder"
        return RemoteStorageError(
            f"{url}: the {what} does not exist ({reason}). Create it, or correct run.remote",
            is_permanent=True,
        )
    if _is_denied(error):
        advice = _CREDENTIALS.get(get_protocol(url), "check the permissions and the credentials")
        return RemoteStorageError(
            f"{url}: access denied ({reason}). {_upper(advice)}", is_permanent=True
        )
    if isinstance(error, OSError) and error.errno in _LOCAL_ERRNOS:
        return RemoteStorageError(f"{url}: {reason}. Free some space")
    return RemoteStorageError(
        f"{url}: {reason}. Check the address, the network, and the endpoint of the storage"
    )


def get_protocol(url: str) -> str:
    """Return the protocol of a URL, such as `s3`; `file` for a path."""
    protocol, separator, _ = url.partition("://")
    if not separator:
        return "file"
    return _ALIASES.get(protocol, protocol)


def is_bucket(url: str) -> bool:
    """Whether a URL names object storage."""
    return get_protocol(url) in ("gs", "s3", "az", "abfs", "oss", "oci")


def _describe_missing_package(error: ImportError, url: str) -> str:
    protocol = get_protocol(url)
    if protocol not in _PACKAGES:
        return f"{url}: {error}"
    package, extra = _PACKAGES[protocol]
    return (
        f"{url}: the package {package} is not installed; start the command with "
        f"`uv run --extra {extra} apps/train`, or outside of this repository: "
        f"pip install 'cls-callbacks[{extra}]'"
    )


def _is_denied(error: Exception) -> bool:
    if isinstance(error, PermissionError):
        return True
    if getattr(error, "code", None) in _DENIED_CODES:
        return True
    if type(error).__name__ in _DENIED_NAMES:
        return True
    return isinstance(error, OSError) and str(error).startswith("Forbidden")


def _get_reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    first_line = str(reason).strip().partition("\n")[0]
    return re.sub(r"\.$", "", first_line)[:300]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
