"""What a recipe leaves to the data or to the weights that it starts from: size, mean and std of the model's input.

`auto` and `weights` in the preprocessing node become numbers here, before anything else is built, so that config.yaml,
labels_mapping.json and a resumed run hold numbers alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from cls_data import DataModuleConfig, Quarantine, Record, fold_of, read_split
from cls_export import ImageError, LabelsMapping, Preprocessing
from cls_export.contract.suggestions import did_you_mean
from cls_models import (
    BACKBONES,
    PretrainedInput,
    find_source_run,
    get_pretrained_input,
    get_timm_pretrained_input,
)
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build
from cls_train.errors import ConfigError

LOOKED_AT = 500
"""At most so many training images, evenly spaced, from which size, mean and std are estimated."""

STEP, LARGEST = 16, 224
"""Pixels. Sides are multiples of 16, so that little of a map is lost where networks halve it; more than ImageNet's
usual 224 is dear and a choice to be made on purpose."""

_AUTO, _WEIGHTS = "auto", "weights"
_KEYS = ("size", "resize", "resize_to", "resample", "mean", "std")


class _Look(NamedTuple):
    """Of one image: its size in pixels, and float [3] of its values, scaled to 0-1."""

    height: int
    width: int
    mean: NDArray[np.float32]
    mean_square: NDArray[np.float32]


def resolve_model_input(config: RunConfig, interrupted: RunConfig | None = None) -> RunConfig:
    """Replace every `auto` and `weights` of the preprocessing node by what it stands for.

    `auto` for the size is the median training image, each side rounded up to a multiple of 16 and at most 224; for mean
    and std it is those of the weights that training starts from, or of the training images where it starts from random
    ones. `weights` is always what those weights were evaluated with: the pretrained ones of model.weights, or those of
    the run that model.init_from names. An interrupted run goes on with what it took from them, since they may be gone.

    Raises:
        BackboneError: model.init_from names no run.
        BundleError: the labels mapping of that run cannot be read.
        ConfigError: `weights` where training starts from random ones, or `auto` for a key or a resize that it cannot be
            used with.
        DataError: the training split cannot be read.
    """
    node = dict(config.preprocessing)
    asked = {key: node[key] for key in _KEYS if node.get(key) in (_AUTO, _WEIGHTS)}
    if not asked:
        return config
    recorded = {} if interrupted is None else interrupted.preprocessing
    expected = recorded if asked.keys() <= recorded.keys() else _of_weights(config.model)
    for key in [
        key for key, word in asked.items() if word == _WEIGHTS or (key != "size" and expected)
    ]:
        if expected is None:
            raise ConfigError(
                f"preprocessing.{key}: 'weights' takes it from pretrained weights, and model.weights is null; set "
                "model.weights=DEFAULT or +model.init_from=RUN, or choose another preprocessing, such as "
                "preprocessing=auto"
            )
        node[key] = expected[key]
        if key == "resize" and "fill" in expected:
            node.setdefault("fill", expected["fill"])
        del asked[key]
    if asked:
        node |= _of_data(config.data, node, asked)
    return config.model_copy(update={"preprocessing": node})


def fitting_size(heights: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    """Return height and width for images of these sizes in pixels: the medians, rounded up to 16, at most 224."""
    height, width = (
        min(LARGEST, -(-int(np.median(sides)) // STEP) * STEP) for sides in (heights, widths)
    )
    return height, width


def _of_weights(model: Node) -> dict[str, Any] | None:
    """Return what the weights were evaluated with, by the keys of the preprocessing node; None for random ones."""
    if (pretrained := _pretrained(model)) is not None:
        return {
            "size": list(pretrained.size),
            "resize": "shortest_edge",
            "resize_to": pretrained.resize_size,
            "resample": pretrained.interpolation,
            "mean": list(pretrained.mean),
            "std": list(pretrained.std),
        }
    if model.get("init_from"):
        return LabelsMapping.load(
            find_source_run(str(model["init_from"])).labels
        ).preprocessing.model_dump(mode="json")
    return None


def _pretrained(model: Node) -> PretrainedInput | None:
    if not (weights := model.get("weights")):
        return None
    name, target = str(model.get("name")), model.get("_target_")
    if target == "cls_models.build_timm_backbone":
        try:
            return get_timm_pretrained_input(name, str(weights))
        except ImportError as error:
            raise ConfigError(f"model: {error}") from error
    if name not in BACKBONES:
        raise ConfigError(f"model.name: unknown backbone {name!r}; {did_you_mean(name, BACKBONES)}")
    return get_pretrained_input(name, str(weights))


def _of_data(data: Node, node: Node, asked: dict[str, str]) -> dict[str, Any]:
    if unknown := sorted(asked.keys() - {"size", "mean", "std"}):
        raise ConfigError(f"preprocessing.{unknown[0]}: 'auto' is for size, mean and std alone")
    if "size" in asked and node.get("resize") == "shortest_edge":
        raise ConfigError(
            "preprocessing.size: 'auto' cannot be used with resize: shortest_edge, since it would have to choose how "
            "much is cut off; give numbers, or use squash or letterbox"
        )
    heights, widths, means, squares = zip(
        *_looks(build(data, "data", DataModuleConfig)), strict=True
    )
    found: dict[str, Any] = {}
    if "size" in asked:
        found["size"] = list(fitting_size(heights, widths))
        logger.info(
            "preprocessing.size: {} x {} px for a median training image of {:.0f} x {:.0f} (height x width, {} seen)",
            *found["size"],
            np.median(heights),
            np.median(widths),
            len(heights),
        )
    if asked.keys() & {"mean", "std"}:
        mean = np.mean(means, axis=0)  # each image counts the same, whatever its size
        deviation = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 1e-6))
        for key, values in (("mean", mean), ("std", deviation)):
            if key in asked:
                found[key] = [round(float(value), 4) for value in values]
                logger.info(
                    "preprocessing.{}: {} of {} training images", key, found[key], len(heights)
                )
    return found


def _looks(settings: DataModuleConfig) -> list[_Look]:
    """Look at some training images, one at a time, each at its own size."""
    if settings.synthetic is not None:
        settings.synthetic.write(settings.root)
    quarantine = None if settings.quarantine is None else Quarantine.load(settings.quarantine)
    read = partial(
        read_split, settings.root, annotations=settings.annotations, quarantine=quarantine
    )
    records = read("train")
    if settings.fold is not None and settings.folds is not None:
        records = fold_of(records, read("valid"), settings.fold, settings.folds)["train"]
    looks = [
        look for record in records[:: -(-len(records) // LOOKED_AT)] if (look := _look(record))
    ]
    if not looks:
        raise ConfigError(
            f"{settings.root}: no readable training image to take the preprocessing's settings from"
        )
    return looks


def _look(record: Record) -> _Look | None:
    try:
        image = Preprocessing(size=(1, 1), mean=(0, 0, 0), std=(1, 1, 1)).decode(
            record.path.read_bytes()
        )
    except (ImageError, OSError):
        return None  # the data gate will name it, with its row
    pixels = np.asarray(image, dtype=np.float32) / 255
    height, width, _ = pixels.shape
    return _Look(height, width, pixels.mean(axis=(0, 1)), np.square(pixels).mean(axis=(0, 1)))
