"""Replace `auto` and `weights` in the preprocessing node by values from the data or the weights.

This happens before anything else is built, so config.yaml, labels_mapping.json, and a resumed run
hold numbers only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from cls_data import DataModuleConfig, Record, read_records
from cls_export import ImageError, LabelsMapping, Preprocessing
from cls_export.contract.suggestions import did_you_mean
from cls_models import (
    BACKBONES,
    PretrainedInput,
    find_init_checkpoint,
    get_pretrained_input,
    get_timm_pretrained_input,
)
from cls_train.composition.config import Node, RunConfig
from cls_train.composition.instantiate import build
from cls_train.errors import ConfigError

MAX_SAMPLED_IMAGES = 500
"""Number of evenly spaced training images from which size, mean, and std are estimated."""

SIZE_STEP = 16
"""Sides are multiples of this, because networks halve their feature maps repeatedly."""

MAX_SIZE = 224
"""ImageNet's usual size in pixels. Larger inputs are expensive and must be set explicitly."""

_AUTO, _WEIGHTS = "auto", "weights"
_KEYS = ("size", "resize", "resize_to", "resample", "mean", "std")
_AUTO_KEYS = ("size", "mean", "std")


class _ImageStatistics(NamedTuple):
    """Size in pixels, and the mean and mean square of each channel, float [3], scaled to 0-1."""

    height: int
    width: int
    mean: NDArray[np.float32]
    mean_square: NDArray[np.float32]


def resolve_preprocessing(config: RunConfig, interrupted: RunConfig | None = None) -> RunConfig:
    """Replace every `auto` and `weights` of the preprocessing node.

    - `size: auto` is the median size of the training images, each side rounded up to a multiple of
      16 and at most 224.
    - `mean: auto` and `std: auto` are those of the initial weights, or of the training images if
      the initial weights are random.
    - `weights` is the value with which the initial weights were evaluated: those of
      `model.weights`, or of the run in `model.init_from`.

    Args:
        config: The run.
        interrupted: Its recorded configuration if it is resumed, because the initial weights may
            no longer exist.

    Raises:
        BackboneError: `model.init_from` is not a run folder, checkpoint, or bundle.
        BundleError: The labels mapping of that run cannot be read.
        ConfigError: `weights` is used without initial weights, or `auto` for a key or a resize
            method that does not support it.
        DataError: The training split cannot be read.
    """
    node = dict(config.preprocessing)
    unresolved = {key: node[key] for key in _KEYS if node.get(key) in (_AUTO, _WEIGHTS)}
    if not unresolved:
        return config

    if interrupted is not None and unresolved.keys() <= interrupted.preprocessing.keys():
        source: dict[str, Any] | None = interrupted.preprocessing
    else:
        source = _read_weights_preprocessing(config.model)

    for key, word in list(unresolved.items()):
        if word == _AUTO and (key == "size" or not source):
            continue

        if source is None:
            raise ConfigError(
                f"preprocessing.{key}: 'weights' needs pretrained weights, but model.weights is "
                "null; set model.weights=DEFAULT or model.init_from=RUN, or choose another "
                "preprocessing, such as preprocessing=auto"
            )
        node[key] = source[key]
        if key == "resize":
            for detail in ("fill", "rounding"):
                if detail in source:
                    node.setdefault(detail, source[detail])
        del unresolved[key]

    if unresolved:
        _check_auto(node, unresolved)
        decoder = _create_decoder(node)
        node |= _estimate_from_images(config.data, decoder, list(unresolved))
    return config.model_copy(update={"preprocessing": node})


def choose_size(heights: Sequence[int], widths: Sequence[int]) -> tuple[int, int]:
    """Return the median height and width, each rounded up to a multiple of 16, at most 224."""
    height = _choose_side(heights)
    width = _choose_side(widths)
    return height, width


def _choose_side(sides: Sequence[int]) -> int:
    median = int(np.median(sides))
    steps = -(-median // SIZE_STEP)
    rounded_up = steps * SIZE_STEP
    return min(MAX_SIZE, rounded_up)


def _read_weights_preprocessing(model: Node) -> dict[str, Any] | None:
    """Return the preprocessing of the initial weights; None if they are random."""
    pretrained = _get_pretrained_input(model)
    if pretrained is not None:
        return {
            "size": list(pretrained.size),
            "resize": "shortest_edge",
            "resize_to": pretrained.resize_size,
            "resample": pretrained.interpolation,
            "mean": list(pretrained.mean),
            "std": list(pretrained.std),
        }
    source = model.get("init_from")
    if not source:
        return None
    labels = LabelsMapping.load(find_init_checkpoint(str(source)).labels)
    return labels.preprocessing.model_dump(mode="json")


def _get_pretrained_input(model: Node) -> PretrainedInput | None:
    weights = model.get("weights")
    if not weights:
        return None
    name = str(model.get("name"))
    if model.get("_target_") == "cls_models.build_timm_backbone":
        try:
            return get_timm_pretrained_input(name, str(weights))
        except ImportError as error:
            raise ConfigError(f"model: {error}") from error
    if name not in BACKBONES:
        raise ConfigError(f"model.name: unknown backbone {name!r}; {did_you_mean(name, BACKBONES)}")
    return get_pretrained_input(name, str(weights))


def _check_auto(node: Node, unresolved: dict[str, str]) -> None:
    unsupported = sorted(unresolved.keys() - set(_AUTO_KEYS))
    if unsupported:
        raise ConfigError(
            f"preprocessing.{unsupported[0]}: 'auto' is supported for size, mean, and std only"
        )
    if "size" in unresolved and node.get("resize") == "shortest_edge":
        raise ConfigError(
            "preprocessing.size: 'auto' cannot be combined with resize: shortest_edge, because "
            "resize_to is unknown; set size and resize_to, or use resize: squash or letterbox"
        )


def _create_decoder(node: Node) -> Preprocessing:
    """Return a preprocessing that decodes like the one of the node, whose size is still unknown."""
    settings: Node = {
        "_target_": "cls_export.Preprocessing",
        "size": [1, 1],
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    if "max_pixels" in node:
        settings["max_pixels"] = node["max_pixels"]
    return build(settings, "preprocessing", Preprocessing)


def _estimate_from_images(
    data: Node, decoder: Preprocessing, keys: Sequence[str]
) -> dict[str, Any]:
    """Estimate size, mean, and std from training images."""
    settings = build(data, "data", DataModuleConfig)
    if settings.shards is not None:
        raise ConfigError(
            f"preprocessing.{keys[0]}: 'auto' needs the files of training images, which "
            "data.shards replaces; set numbers, such as those that a run on some of the files has "
            "written to its config.yaml"
        )
    images = _measure_images(settings, decoder)

    estimated: dict[str, Any] = {}
    if "size" in keys:
        heights = [image.height for image in images]
        widths = [image.width for image in images]
        estimated["size"] = list(choose_size(heights, widths))
        logger.info(
            "preprocessing.size: {} x {} px; the median of {} training images is "
            "{:.0f} x {:.0f} (height x width)",
            *estimated["size"],
            len(images),
            np.median(heights),
            np.median(widths),
        )

    # Each image has the same weight, whatever its size.
    mean = np.mean([image.mean for image in images], axis=0)
    mean_square = np.mean([image.mean_square for image in images], axis=0)
    variance = np.maximum(mean_square - mean**2, 1e-6)
    for key, values in (("mean", mean), ("std", np.sqrt(variance))):
        if key in keys:
            estimated[key] = [round(float(value), 4) for value in values]
            logger.info(
                "preprocessing.{}: {} of {} training images", key, estimated[key], len(images)
            )
    return estimated


def _measure_images(settings: DataModuleConfig, decoder: Preprocessing) -> list[_ImageStatistics]:
    records = _read_training_records(settings)
    step = -(-len(records) // MAX_SAMPLED_IMAGES)
    images = []
    for record in records[::step]:
        image = _measure_image(record, decoder)
        if image is not None:
            images.append(image)
    if not images:
        raise ConfigError(
            f"{settings.root}: cannot estimate preprocessing 'auto': no readable training image; "
            "set numbers instead"
        )
    return images


def _read_training_records(settings: DataModuleConfig) -> Sequence[Record]:
    if settings.synthetic is not None:
        settings.synthetic.write(settings.root)
    return read_records(settings)["train"]


def _measure_image(record: Record, decoder: Preprocessing) -> _ImageStatistics | None:
    try:
        image = decoder.decode(record.path)
    except ImageError:
        return None  # the data gate reports it with its row

    levels = np.asarray(image, dtype=np.float32)
    pixels = levels / 255
    return _ImageStatistics(
        height=image.height,
        width=image.width,
        mean=pixels.mean(axis=(0, 1)),
        mean_square=np.square(pixels).mean(axis=(0, 1)),
    )
