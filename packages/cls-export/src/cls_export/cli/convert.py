"""Commands that write another bundle: quantize, float16, migrate. They need `cls-export[torch]`."""

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cls_export.cli.arguments import ANNOTATION_EXAMPLE, MAX_CALIBRATION_IMAGES
from cls_export.cli.output import escape_line
from cls_export.contract.errors import BundleError
from cls_export.contract.files import read_bytes
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure_latency

if TYPE_CHECKING:
    from cls_export.convert.reduced_precision import ConversionReport

_LATENCY_ROUNDS = 7
_LATENCY_BATCH_SIZE = 8

_MAX_ANNOTATION_BYTES = 2**30


class _LabeledImages(NamedTuple):
    paths: list[Path]
    labels: list[str]


def quantize(options: argparse.Namespace) -> int:
    """Write an int8 bundle, and print what it costs and gains."""
    from cls_export.convert.quantization import quantize_bundle

    calibration_images = _read_annotations(options.calibration_images).paths
    step = max(1, len(calibration_images) // MAX_CALIBRATION_IMAGES)
    eval_set = _read_annotations(options.eval_images)
    report = quantize_bundle(
        options.bundle,
        options.target,
        calibration_images[::step][:MAX_CALIBRATION_IMAGES],
        eval_set.paths,
        eval_set.labels,
        max_accuracy_drop=options.max_accuracy_drop,
    )
    _print_report(report, "int8", options)
    return 0


def float16(options: argparse.Namespace) -> int:
    """Write a float16 bundle, and print what it costs and gains."""
    from cls_export.convert.float16 import convert_to_float16

    eval_set = _read_annotations(options.eval_images)
    report = convert_to_float16(
        options.bundle,
        options.target,
        eval_set.paths,
        eval_set.labels,
        max_accuracy_drop=options.max_accuracy_drop,
    )
    _print_report(report, "float16", options)
    return 0


def migrate_model(options: argparse.Namespace) -> int:
    """Write a bundle from an older model, and print what was assumed."""
    from cls_export.convert.migration import migrate

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        migrate(
            options.model,
            options.mapping,
            options.target,
            options.golden,
            size=options.size and tuple(options.size),
            resize=options.resize,
            resize_to=options.resize_to,
            resample=options.resample,
        )
    for warning in caught:
        print(f"cls-export: {escape_line(str(warning.message))}", file=sys.stderr)
    written = f"wrote {options.target}, with the logits of {options.model} for its golden images"
    print(escape_line(written))
    return 0


def _print_report(report: "ConversionReport", precision: str, options: argparse.Namespace) -> None:
    print(
        f"accuracy       {report.accuracy_after:.2%} on {report.images} images, "
        f"float32 {report.accuracy_before:.2%}"
    )
    size_after = report.bytes_after / 1e6
    size_before = report.bytes_before / 1e6
    print(f"size           {size_after:.1f} MB, float32 {size_before:.1f} MB")
    print(f"logits         within {report.max_difference:.2g} of float32")

    classifiers = {precision: Classifier(options.target), "float32": Classifier(options.bundle)}
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    for _ in range(_LATENCY_ROUNDS):  # alternate, so that load on the machine affects both
        for name, classifier in classifiers.items():
            latency = measure_latency(classifier, _LATENCY_BATCH_SIZE, seconds=0.3)
            times[name].append(latency.median_ms / _LATENCY_BATCH_SIZE)

    for name, values in times.items():
        milliseconds = statistics.median(values)
        print(f"{name:<15}{milliseconds:.2f} ms per image in batches of {_LATENCY_BATCH_SIZE}")


def _read_annotations(file: str) -> _LabeledImages:
    """Read the image paths and labels of an annotation file.

    The training packages validate such files thoroughly; this reads only what conversion needs.
    """
    images = _LabeledImages([], [])
    content = read_bytes(file, error=BundleError, max_bytes=_MAX_ANNOTATION_BYTES)
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            images.paths.append(Path(file).parent / row["image"])
            images.labels.append(row["suffix"] if "suffix" in row else row["label"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(
                f"{file}:{number}: expected a line such as {ANNOTATION_EXAMPLE}"
            ) from error

    if not images.paths:
        raise BundleError(f"{file}: contains no rows")
    for path, label in zip(images.paths, images.labels, strict=True):
        if not isinstance(label, str):
            raise BundleError(
                f"{file}: the label of {path.name} is {label!r}; expected a class name as a string"
            )
    return images
