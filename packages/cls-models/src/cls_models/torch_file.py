"""Read files written by `torch.save`."""

from pathlib import Path
from typing import Any

import torch


class TorchFileError(ValueError):
    """A file is missing or is not a readable `torch.save` file. The message starts with its path."""


def read_torch_file(path: str | Path) -> Any:
    """Read a file written by `torch.save`, with its tensors on the CPU.

    The file is loaded with `weights_only=True`, so no code in it runs.

    Raises:
        TorchFileError: The file is missing, damaged, or holds objects other than tensors and plain values.
    """
    if not Path(path).is_file():
        raise TorchFileError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files raise many exception types
        raise TorchFileError(f"{path}: not a readable PyTorch file ({error})") from error
