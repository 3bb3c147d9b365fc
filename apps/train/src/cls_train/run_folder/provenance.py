"""Versions and the git commit that a run records."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

_RECORDED_PACKAGES = (
    "cls-data",
    "cls-models",
    "cls-callbacks",
    "cls-export",
    "cls-report",
    "lightning",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
)


def get_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        versions[name] = metadata.version(name)
    return versions


def get_code_commit(folder: Path = Path(__file__).parent) -> str | None:
    """Return the git commit of the training code, with `-dirty` for local changes.

    Args:
        folder: A folder of the checkout.

    Returns:
        None outside a git repository.
    """
    try:
        commit = _run_git(folder, "rev-parse", "HEAD")
        has_changes = _run_git(folder, "status", "--porcelain") != ""
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if has_changes else commit


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return process.stdout.strip()
