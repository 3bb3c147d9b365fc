"""Read files written by `torch.save`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_BACKBONE_PREFIX = "backbone."
"""Prefix of the network's tensors in the state_dict of a `ClassificationModule`."""


class TorchFileError(ValueError):
    """A file is missing or not a readable `torch.save` file. The message starts with its path."""


def read_torch_file(path: str | Path) -> Any:
    """Read a file written by `torch.save`, with its tensors on the CPU.

    The file is loaded with `weights_only=True`, so no code in it runs.

    Raises:
        TorchFileError: The file is missing, damaged, or holds other objects than tensors and plain
            values.
    """
    if not Path(path).is_file():
        raise TorchFileError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile files raise many exception types
        raise TorchFileError(f"{path}: not a readable PyTorch file ({error})") from error


def get_backbone_state(checkpoint: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the network's state dict from the content of a `ClassificationModule`'s checkpoint.

    Raises:
        TorchFileError: The content is not such a checkpoint; `path` names it.
    """
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise TorchFileError(
            f"{path}: not a checkpoint of a run: it has no state_dict. "
            "Load a plain state dict with model.weights"
        )
    backbone_state = {}
    for key, value in state.items():
        if key.startswith(_BACKBONE_PREFIX):
            name = key.removeprefix(_BACKBONE_PREFIX)
            backbone_state[name] = value
    if not backbone_state:
        raise TorchFileError(
            f"{path}: not a checkpoint of a ClassificationModule: its state_dict has no tensor "
            f"that starts with {_BACKBONE_PREFIX!r}"
        )
    return backbone_state
