"""Published and own weights: which there are, what input they expect, and how they get into a network."""

import difflib
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

from cls_models.backbones.heads import BackboneError, head_name

_log = logging.getLogger(__name__)

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads in the midst of GoogLeNet and Inception, which our networks do without."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Files from before names could hold dots: norm.1 is norm1 today."""


@dataclass(frozen=True)
class PretrainedInput:
    """The input that weights were trained for.

    Attributes:
        mean: red, green, blue, of values scaled to 0-1.
        std: likewise.
        size: height and width of the crop, in pixels.
        resize_size: length of the shorter side before the crop, in pixels.
        interpolation: `nearest`, `bilinear`, `bicubic`, ...
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]
    resize_size: int
    interpolation: str


def get_pretrained_input(name: str, weights: str | None) -> PretrainedInput | None:
    """Say what input a torchvision backbone's weights expect; nothing is downloaded.

    Args:
        name: one of `BACKBONES`.
        weights: as for `build_backbone`. Of a path it is unknown, and the answer for `DEFAULT` is given.

    Returns:
        None for random weights.

    Raises:
        BackboneError: a word that is neither a path nor the name of weights.
    """
    if weights is None:
        return None
    entry = weights_entry(name, weights) or get_model_weights(name)["DEFAULT"]
    transforms = entry.transforms()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    red, green, blue = transforms.mean
    of_red, of_green, of_blue = transforms.std
    return PretrainedInput(
        (red, green, blue),
        (of_red, of_green, of_blue),
        (crop, crop),
        resize,
        transforms.interpolation.value,
    )


def weights_entry(name: str, weights: str) -> WeightsEnum | None:
    """Return torchvision's entry for a name of weights, None for a path.

    Raises:
        BackboneError: a word that is neither: without a suffix, a slash, or a file of that name.
    """
    try:
        entries = get_model_weights(name)
    except ValueError as error:
        raise BackboneError(
            f"unknown backbone {name!r}, so there are no weights of it ({error})"
        ) from error
    word = weights.removeprefix(f"{entries.__name__}.")
    if word in entries.__members__:
        return entries[word]
    path = Path(weights)
    if path.suffix or len(path.parts) > 1 or path.exists():
        return None
    known = tuple(entries.__members__)
    nearest = difflib.get_close_matches(weights.upper(), known, n=1, cutoff=0.0)[0]
    raise BackboneError(
        f"unknown weights {weights!r} of {name}; did you mean {nearest!r}? Known are {', '.join(known)}, "
        "null, or the path of a state dict"
    )


def load_weights(network: nn.Module, name: str, weights: str) -> None:
    """Load published or own weights into a torchvision backbone, as `build_backbone` describes.

    Raises:
        BackboneError: weights that cannot be downloaded, read or fitted.
    """
    entry = weights_entry(name, weights)
    state = read_state_dict(weights) if entry is None else _download(entry)
    fit_state_dict(network, state, f"{name} weights {weights!r}")


def read_state_dict(weights: str) -> Mapping[str, Tensor]:
    """Read a file that maps names to tensors.

    Raises:
        BackboneError: there is no such file, it is damaged, or it holds something else.
    """
    path = Path(weights)
    if not path.is_file():
        raise BackboneError(
            f"weights {weights!r}: no such file; expected null, DEFAULT, or the path of a state dict"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load reports a damaged or hostile file by many exceptions
        raise BackboneError(f"weights {weights!r}: not a readable state dict ({error})") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise BackboneError(
            f"weights {weights!r}: expected a state dict, a mapping from names to tensors; "
            "the checkpoint of a run is loaded by model.init_from"
        )
    return state


def fit_state_dict(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict: the head's rows may be another number, everything else must fit exactly.

    A head with another number of rows stays random, and so does the first convolution of a small stem where the file
    has the standard one; each is logged.

    Args:
        network: changed in place.
        state: not changed. Auxiliary heads and torchvision's older names are understood, the position embeddings of a
            vision transformer are interpolated to its grid.
        source: what to call these weights in messages.

    Raises:
        BackboneError: a tensor is missing, unknown, of another shape, or not finite.
    """
    own = network.state_dict()
    fitting = _adapted(network, state)
    if broken := [
        key
        for key, value in fitting.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]:
        raise BackboneError(
            f"{source} are damaged, or of a training that diverged: {len(broken)} tensors hold values that are not "
            f"finite (such as {broken[:3]}); get the file anew, or name other weights"
        )
    misshapen = {key for key in fitting.keys() & own.keys() if fitting[key].shape != own[key].shape}
    random = _foreign_head(network, fitting, misshapen, source) | _foreign_stem(
        network, misshapen, source
    )
    for key in misshapen:
        del fitting[key]
    outcome = network.load_state_dict(fitting, strict=False)
    # Files from before torch 0.4.1 do not count batches; torchvision still publishes some, and nothing reads the count.
    missing = {
        key for key in outcome.missing_keys if not key.endswith("num_batches_tracked")
    } - random
    surplus = set(outcome.unexpected_keys)
    if wrong := sorted((missing | surplus | misshapen) - random):
        raise BackboneError(
            f"{source} belong to another network: {len(missing)} tensors missing, {len(surplus)} unknown, "
            f"{len(misshapen - random)} of another shape (such as {wrong[:3]})"
        )


def _foreign_head(
    network: nn.Module, state: Mapping[str, Tensor], misshapen: Collection[str], source: str
) -> set[str]:
    name = head_name(network)
    own = network.state_dict()
    foreign = {
        key
        for key in misshapen
        if key.rpartition(".")[0] == name and state[key].shape[1:] == own[key].shape[1:]
    }
    if f"{name}.weight" in foreign:
        rows = [len(tensors[f"{name}.weight"]) for tensors in (state, own)]
        _log.info(
            "%s have a head for %d classes, this network one for %d: its head starts from random weights, "
            "all else is loaded. To keep rows by the names of classes, use model.init_from",
            source,
            *rows,
        )
    return foreign


def _foreign_stem(network: nn.Module, misshapen: Collection[str], source: str) -> set[str]:
    if getattr(network, "stem_kind", "standard") != "small" or "conv1.weight" not in misshapen:
        return set()
    _log.info(
        "%s have the standard stem, this network the small one: conv1 starts from random weights",
        source,
    )
    return {"conv1.weight"}


def _adapted(network: nn.Module, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Rename, drop and interpolate what torchvision itself would when it loads its own files."""
    tensors = {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in state.items()
        if not key.startswith(_AUXILIARY)
    }
    adapted: Any = OrderedDict(tensors)
    # MNASNet refuses a state dict that does not tell its version; a file saved as a plain dict tells none.
    adapted._metadata = {"": {"version": 2}, **getattr(state, "_metadata", {})}
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in adapted:
        try:
            return interpolate_embeddings(network.image_size, network.patch_size, adapted)  # type: ignore[no-any-return]
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
            f"{weights} could not be downloaded ({error}). Train from random weights with model.weights=null, "
            f"or fetch {weights.url} elsewhere and put it at {cache}, or name its place with model.weights=PATH"
        ) from error
    except (
        Exception
    ) as error:  # a wrong hash is a RuntimeError; a damaged file can be nearly anything
        raise BackboneError(
            f"{weights}: what was downloaded is damaged ({error}); delete {cache} and repeat"
        ) from error
    return state
