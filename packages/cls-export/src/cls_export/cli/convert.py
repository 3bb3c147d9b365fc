"""Commands that write another bundle: quantize, float16, migrate. They need `cls-export[torch]`."""

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from cls_export.contract.errors import BundleError
from cls_export.contract.files import read_bytes
from cls_export.contract.preprocessing import Resample, Resize
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure_latency

if TYPE_CHECKING:
    from cls_export.convert.reduced_precision import ConversionReport

_MAX_CALIBRATION_IMAGES = 512
_LATENCY_ROUNDS = 7
_LATENCY_BATCH_SIZE = 8
_NEEDS_EXTRA = 'Needs: pip install "cls-export[torch]"'


_EXAMPLE = '{"image": "a.jpg", "suffix": "23"}'
"""A line of an annotation file."""


class _LabeledImages(NamedTuple):
    paths: list[Path]
    labels: list[str]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of the commands."""
    quantize = commands.add_parser(
        "quantize",
        help="convert a bundle to int8",
        description="Write an int8 bundle, for CPUs, and print its accuracy, size, and speed. "
        f"{_NEEDS_EXTRA}",
    )
    _add_conversion_arguments(quantize)
    quantize.add_argument(
        "--calibration-images",
        metavar="JSONL",
        required=True,
        help="training images, in lines of the same form; at most "
        f"{_MAX_CALIBRATION_IMAGES} of them are used",
    )
    quantize.set_defaults(run=_quantize)

    float16 = commands.add_parser(
        "float16",
        help="convert a bundle to float16",
        description="Write a float16 bundle of half the size, for GPUs, and print its accuracy, "
        f"size, and speed. {_NEEDS_EXTRA}",
    )
    _add_conversion_arguments(float16)
    float16.set_defaults(run=_float16)

    migrate = commands.add_parser(
        "migrate",
        help="convert an older ONNX file and its labels mapping",
        description="Write a bundle from an older ONNX file and a labels mapping with only "
        f"num_classes, class_to_idx, idx_to_class, and normalization. {_NEEDS_EXTRA}",
    )
    migrate.add_argument("model", metavar="MODEL", help="the ONNX file, from images to logits")
    migrate.add_argument("mapping", metavar="MAPPING", help="the model's labels_mapping.json")
    migrate.add_argument("target", metavar="TARGET", help="the folder to write")
    migrate.add_argument(
        "--golden",
        metavar="IMAGE",
        nargs="+",
        required=True,
        help="a few image files to copy into the bundle for `cls-export verify`",
    )
    migrate.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size in px, if the model leaves it free",
    )
    migrate.add_argument(
        "--resize", choices=get_args(Resize), help="how images were resized (default: squash)"
    )
    migrate.add_argument(
        "--resize-to",
        type=int,
        metavar="PX",
        help="for --resize shortest_edge: length of the shorter side before the crop",
    )
    migrate.add_argument(
        "--resample", choices=get_args(Resample), help="resampling filter (default: bilinear)"
    )
    migrate.set_defaults(run=_migrate)


def _add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="the export/ folder of a run")
    parser.add_argument("target", metavar="TARGET", help="the folder to write")
    parser.add_argument(
        "--eval-images",
        metavar="JSONL",
        required=True,
        help=f"images that the model was not trained on, in lines such as {_EXAMPLE}",
    )
    parser.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=0.005,
        metavar="SHARE",
        help="write nothing if the accuracy drops by more than this, 0 to 1 (default: %(default)s)",
    )


def _quantize(options: argparse.Namespace) -> int:
    from cls_export.convert.quantization import quantize_bundle

    calibration_images = _read_annotations(options.calibration_images).paths
    step = max(1, len(calibration_images) // _MAX_CALIBRATION_IMAGES)
    eval_set = _read_annotations(options.eval_images)
    report = quantize_bundle(
        options.bundle,
        options.target,
        calibration_images[::step][:_MAX_CALIBRATION_IMAGES],
        eval_set.paths,
        eval_set.labels,
        max_accuracy_drop=options.max_accuracy_drop,
    )
    _print_report(report, "int8", options)
    return 0


def _float16(options: argparse.Namespace) -> int:
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


def _migrate(options: argparse.Namespace) -> int:
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
        print(f"cls-export: {warning.message}", file=sys.stderr)
    print(f"wrote {options.target}, with the logits of {options.model} for its golden images")
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
    content = read_bytes(file, error=BundleError)
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            images.paths.append(Path(file).parent / row["image"])
            images.labels.append(row["suffix"] if "suffix" in row else row["label"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{file}:{number}: expected a line such as {_EXAMPLE}") from error

    if not images.paths:
        raise BundleError(f"{file}: contains no rows")
    for path, label in zip(images.paths, images.labels, strict=True):
        if not isinstance(label, str):
            raise BundleError(
                f"{file}: the label of {path.name} is {label!r}; expected a class name as a string"
            )
    return images
