"""Torchvision backbones, from random or from given weights."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

BACKBONES = ("resnet18", "resnet34", "resnet50")
_HEAD = "fc."


class BackboneError(ValueError):
    """A backbone or its weights cannot be had as asked. The message says what to do instead."""


def build_backbone(name: str, num_classes: int, weights: str | None = None) -> nn.Module:
    """Build a network that maps float32 [N, 3, H, W] to logits float32 [N, num_classes].

    Args:
        name: one of `BACKBONES`.
        num_classes: at least 2.
        weights: None for random ones; `DEFAULT` for torchvision's best, downloaded once; else the path of a
            state dict as torchvision publishes them. A head of another size than `num_classes` stays random.

    Raises:
        BackboneError: an unknown name, fewer than 2 classes, or weights that cannot be downloaded, read or fitted.
    """
    if name not in BACKBONES:
        nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.0)[0]
        raise BackboneError(f"unknown backbone {name!r}; did you mean {nearest!r}? Known are {', '.join(BACKBONES)}")
    if num_classes < 2:
        raise BackboneError(f"num_classes must be at least 2, got {num_classes}")
    backbone: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    if weights is not None:
        _load_all_but_a_foreign_head(backbone, _state_dict(name, weights), f"{name} weights {weights!r}")
    return backbone


def _state_dict(name: str, weights: str) -> Mapping[str, Tensor]:
    if weights == "DEFAULT":
        return _download(get_model_weights(name)["DEFAULT"])
    path = Path(weights)
    if not path.is_file():
        raise BackboneError(f"weights {weights!r}: no such file; expected null, DEFAULT, or the path of a state dict")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load reports a damaged or hostile file by many exceptions
        raise BackboneError(f"weights {weights!r}: not a readable state dict ({error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BackboneError(f"weights {weights!r}: expected a state dict, a mapping from names to tensors")
    return state


def _download(weights: WeightsEnum) -> Mapping[str, Tensor]:
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        raise BackboneError(
            f"{weights} could not be downloaded ({error}). Train from random weights with model.weights=null, "
            f"or fetch {weights.url} elsewhere and put it at {cache}, or name its place with model.weights=PATH"
        ) from error
    except Exception as error:  # a wrong hash is a RuntimeError; a damaged file can be nearly anything
        raise BackboneError(
            f"{weights}: what was downloaded is damaged ({error}); delete {cache} and repeat"
        ) from error
    return state


def _load_all_but_a_foreign_head(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    own = backbone.state_dict()
    misshapen = {key for key in state.keys() & own.keys() if state[key].shape != own[key].shape}
    foreign_head = {key for key in misshapen if key.startswith(_HEAD)}
    kept = {key: value for key, value in state.items() if key not in misshapen}
    outcome = backbone.load_state_dict(kept, strict=False)
    # Files from before torch 0.4.1 do not count batches; torchvision still publishes some, and nothing reads the count.
    missing = {key for key in outcome.missing_keys if not key.endswith("num_batches_tracked")} - foreign_head
    surplus = set(outcome.unexpected_keys)
    if wrong := sorted((missing | surplus | misshapen) - foreign_head):
        raise BackboneError(
            f"{source} belong to another network: {len(missing)} tensors missing, {len(surplus)} unknown, "
            f"{len(misshapen - foreign_head)} of another shape (such as {wrong[:3]})"
        )
