"""Load pretrained weights, published or from a file, and describe the input they expect."""

import logging
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from cls_export.contract.suggestions import did_you_mean
from cls_models.backbones.heads import BackboneError, find_head_name
from cls_models.torch_file import TorchFileError, read_torch_file

_log = logging.getLogger(__name__)

_AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")
"""Auxiliary heads of GoogLeNet and Inception, which our networks do not have."""

_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Names in old files, such as norm.1, which is now norm1."""


@dataclass(frozen=True)
class PretrainedInput:
    """The input that weights were trained on.

    Attributes:
        mean: Means of R, G, and B, for values scaled to 0-1.
        std: Their standard deviations.
        size: Height and width of the crop in pixels.
        resize_size: Shorter side before the crop in pixels.
        interpolation: `nearest`, `bilinear`, `bicubic`, ...
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]
    resize_size: int
    interpolation: str


def get_pretrained_input(name: str, weights: str | None) -> PretrainedInput | None:
    """Return the input that the weights of a torchvision backbone expect, without a download.

    Arguments are those of `build_backbone`. The result is None for random weights, and that of
    `DEFAULT` for a path.

    Raises:
        BackboneError: `weights` is neither a published name nor a path.
    """
    if weights is None:
        return None
    entry = find_published_weights(name, weights) or get_model_weights(name)["DEFAULT"]
    transforms = entry.transforms()
    (crop,) = transforms.crop_size
    (resize,) = transforms.resize_size
    return PretrainedInput(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=(crop, crop),
        resize_size=resize,
        interpolation=transforms.interpolation.value,
    )


def find_published_weights(name: str, weights: str) -> WeightsEnum | None:
    """Return torchvision's entry for a name of weights, or None for a path.

    A word counts as a path if it has a suffix or a slash, or if such a file exists.
    """
    try:
        entries = get_model_weights(name)
    except ValueError as error:
        raise BackboneError(f"no weights for unknown backbone {name!r} ({error})") from error

    word = weights.removeprefix(f"{entries.__name__}.")
    if word in entries.__members__:
        return entries[word]

    path = Path(weights)
    if path.suffix or len(path.parts) > 1 or path.exists():
        return None

    hint = did_you_mean(weights.upper(), entries.__members__)
    raise BackboneError(
        f"unknown weights {weights!r} for {name}; {hint}. "
        "Use null for random weights, or the path of a state dict"
    )


def load_weights(network: nn.Module, name: str, weights: str) -> None:
    """Load published weights, or weights from a file, into a torchvision backbone."""
    entry = find_published_weights(name, weights)
    state = read_state_dict(weights) if entry is None else _download(entry)
    fit_state_dict(network, state, f"{name} weights {weights!r}")


def read_state_dict(weights: str) -> Mapping[str, Tensor]:
    """Read a file that maps names to tensors."""
    if not Path(weights).is_file():
        raise BackboneError(
            f"weights {weights!r}: no such file; expected null, DEFAULT, or the path of a "
            "state dict"
        )
    try:
        state = read_torch_file(weights)
    except TorchFileError as error:
        raise BackboneError(f"cannot load weights: {error}") from error
    values = state.values() if isinstance(state, Mapping) else [None]
    if not all(isinstance(value, Tensor) for value in values):
        raise BackboneError(
            f"weights {weights!r}: expected a state dict, a mapping from names to tensors. "
            "To start from the checkpoint of a run, use model.init_from"
        )
    return state  # type: ignore[no-any-return]


def fit_state_dict(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a network; all tensors but those of the head must fit exactly.

    A head with another number of rows stays random, and so does the first convolution of a small
    stem if the file has the standard stem. Both are logged.

    Args:
        network: Changed in place.
        state: Not changed. Auxiliary heads are dropped, old names of torchvision are translated,
            and position embeddings of a vision transformer are interpolated to its grid.
        source: A name of these weights for messages.

    Raises:
        BackboneError: A tensor is missing, unknown, of another shape, or not finite.
    """
    own = network.state_dict()
    adapted = _adapt_state(network, state)
    _check_finite(adapted, source)
    mismatched = {
        key for key in adapted.keys() & own.keys() if adapted[key].shape != own[key].shape
    }
    random = _skip_other_head(network, adapted, mismatched, source)
    random |= _skip_other_stem(network, mismatched, source)

    for key in mismatched:
        del adapted[key]
    result = network.load_state_dict(adapted, strict=False)
    # Files from before torch 0.4.1 have no batch counters. torchvision still publishes some of
    # them, and nothing reads the counters.
    missing = {key for key in result.missing_keys if not key.endswith("num_batches_tracked")}
    missing -= random
    unknown = set(result.unexpected_keys)
    wrong = sorted((missing | unknown | mismatched) - random)
    if wrong:
        raise BackboneError(
            f"{source} belong to another network: {len(missing)} tensors missing, {len(unknown)} "
            f"unknown, {len(mismatched - random)} of another shape (such as {wrong[:3]})"
        )


def _check_finite(state: Mapping[str, Tensor], source: str) -> None:
    broken = []
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            broken.append(key)
    if broken:
        raise BackboneError(
            f"{source} are damaged, or their training diverged: {len(broken)} tensors hold values "
            f"that are not finite (such as {broken[:3]}). Download the file again, or use others"
        )


def _skip_other_head(
    network: nn.Module, state: Mapping[str, Tensor], mismatched: Collection[str], source: str
) -> set[str]:
    """Return the tensors of a head with another number of rows, which stay random."""
    name = find_head_name(network)
    own = network.state_dict()
    skipped = set()
    for key in mismatched:
        is_in_head = key.rpartition(".")[0] == name
        if is_in_head and state[key].shape[1:] == own[key].shape[1:]:
            skipped.add(key)
    weight = f"{name}.weight"
    if weight in skipped:
        _log.info(
            "%s have a head for %d classes, this network one for %d: the head stays random. "
            "To copy head rows by class name, use model.init_from",
            source,
            len(state[weight]),
            len(own[weight]),
        )
    return skipped


def _skip_other_stem(network: nn.Module, mismatched: Collection[str], source: str) -> set[str]:
    """Return the first convolution of a small stem if the weights have the standard stem."""
    stem = getattr(network, "stem_kind", "standard")
    if stem != "small" or "conv1.weight" not in mismatched:
        return set()
    _log.info("%s have the standard stem, this network the small one: conv1 stays random", source)
    return {"conv1.weight"}


def _adapt_state(network: nn.Module, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Apply the renames and conversions of torchvision's own loading code."""
    adapted: Any = OrderedDict()
    for key, value in state.items():
        if not key.startswith(_AUXILIARY_PREFIXES):
            adapted[_OLD_DENSENET_NAME.sub(r"\1\2", key)] = value
    # MNASNet refuses a state dict without a version; a file saved as a plain dict has none.
    adapted._metadata = {"": {"version": 2}, **getattr(state, "_metadata", {})}
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in adapted:
        try:
            adapted = interpolate_embeddings(network.image_size, network.patch_size, adapted)
        except ValueError as error:
            raise BackboneError(
                f"the position embeddings of these weights cannot be interpolated ({error})"
            ) from error
    return adapted  # type: ignore[no-any-return]


def _download(weights: WeightsEnum) -> Mapping[str, Tensor]:
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        raise BackboneError(
            f"{weights} could not be downloaded ({error}). Train from random weights with "
            f"model.weights=null, or download {weights.url} elsewhere and save it as {cache} or "
            "pass its path with model.weights=PATH"
        ) from error
    except Exception as error:  # RuntimeError for a wrong hash; nearly anything for other damage
        raise BackboneError(
            f"{weights}: the downloaded file is damaged ({error}); delete {cache} and try again"
        ) from error
    return state
