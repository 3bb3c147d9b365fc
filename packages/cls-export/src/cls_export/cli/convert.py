"""Commands that write another bundle: quantize, half, migrate. They need `cls-export[torch]`."""

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cls_export.contract.errors import BundleError
from cls_export.contract.preprocessing import Resample, Resize
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure

if TYPE_CHECKING:
    from cls_export.convert.reduced_precision import ConversionReport

_CALIBRATED_ON = 512
_TURNS = 7
_BATCH = 8
_NEEDS = 'Needs: pip install "cls-export[torch]"'


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add a parser for each."""
    quantize = commands.add_parser(
        "quantize",
        help="write a bundle that computes in int8",
        description=f"Write a bundle that computes in int8, and say what that costs in answers and brings. {_NEEDS}",
    )
    _add_judged(quantize)
    quantize.add_argument(
        "--calibrate",
        metavar="JSONL",
        required=True,
        help="annotations of training images, of which 512 are taken",
    )
    quantize.set_defaults(run=_quantize)

    half = commands.add_parser(
        "half",
        help="write a bundle that computes in float16",
        description="Write a bundle of half the bytes that computes in float16, for GPUs, and say what that costs in "
        f"answers and brings. {_NEEDS}",
    )
    _add_judged(half)
    half.set_defaults(run=_half)

    migrate = commands.add_parser(
        "migrate",
        help="make a bundle of an older model.onnx and its four-key mapping",
        description="Make a bundle of an older ONNX file and a labels mapping that has num_classes, class_to_idx, "
        f"idx_to_class and normalization alone. {_NEEDS}",
    )
    migrate.add_argument("model", metavar="MODEL", help="the ONNX file: images in, logits out")
    migrate.add_argument("mapping", metavar="MAPPING", help="the labels_mapping.json")
    migrate.add_argument("target", metavar="TARGET", help="the folder to write")
    migrate.add_argument(
        "--golden",
        metavar="IMAGE",
        nargs="+",
        required=True,
        help="a few images, whose answers verify will compare",
    )
    migrate.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the input, if the model leaves it free",
    )
    migrate.add_argument(
        "--resize", choices=get_args(Resize), help="how images were resized (default: squash)"
    )
    migrate.add_argument(
        "--resize-to",
        type=int,
        metavar="PX",
        help="the shorter side before the cut of shortest_edge",
    )
    migrate.add_argument(
        "--resample", choices=get_args(Resample), help="by which filter (default: bilinear)"
    )
    migrate.set_defaults(run=_migrate)


def _add_judged(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="an exported folder")
    parser.add_argument("target", metavar="TARGET", help="the folder to write")
    parser.add_argument(
        "--judge",
        metavar="JSONL",
        required=True,
        help="annotations of images that were not trained on",
    )
    parser.add_argument(
        "--largest-loss",
        type=float,
        default=0.005,
        metavar="SHARE",
        help="refuse to write where more of the right answers are lost (default: %(default)s)",
    )


def _quantize(options: argparse.Namespace) -> int:
    try:
        from cls_export.convert.quantization import quantize_bundle
    except ImportError as error:
        raise BundleError(str(error)) from error
    calibration, eval_images = _annotated(options.calibrate), _annotated(options.judge)
    step = max(1, len(calibration) // _CALIBRATED_ON)
    found = quantize_bundle(
        options.bundle,
        options.target,
        [path for path, _ in calibration[::step]][:_CALIBRATED_ON],
        [path for path, _ in eval_images],
        [label for _, label in eval_images],
        max_accuracy_drop=options.max_accuracy_drop,
    )
    return _say(found, "int8", options)


def _half(options: argparse.Namespace) -> int:
    try:
        from cls_export.convert.float16 import convert_to_float16
    except ImportError as error:
        raise BundleError(str(error)) from error
    eval_images = _annotated(options.judge)
    found = convert_to_float16(
        options.bundle,
        options.target,
        [path for path, _ in eval_images],
        [label for _, label in eval_images],
        max_accuracy_drop=options.max_accuracy_drop,
    )
    return _say(found, "float16", options)


def _say(found: "ConversionReport", kind: str, options: argparse.Namespace) -> int:
    print(
        f"right answers  {found.after:.2%} of {found.images} images, in float32 {found.before:.2%}"
    )
    print(
        f"size           {found.bytes_after / 1e6:.1f} MB, in float32 {found.bytes_before / 1e6:.1f} MB"
    )
    print(f"logits         within {found.max_difference:.2g} of float32's")
    classifiers = {kind: Classifier(options.target), "float32": Classifier(options.bundle)}
    times: dict[str, list[float]] = {name: [] for name in classifiers}
    for _ in range(_TURNS):  # so that a busy moment of the machine hits both
        for name, classifier in classifiers.items():
            (latency,) = measure(classifier, [_BATCH], seconds=0.3)
            times[name].append(latency.median / _BATCH)
    for name, values in times.items():
        print(f"{name:<15}{statistics.median(values):.2f} ms an image, in batches of {_BATCH}")
    return 0


def _migrate(options: argparse.Namespace) -> int:
    try:
        from cls_export.convert.migration import migrate
    except ImportError as error:
        raise BundleError(str(error)) from error
    with warnings.catch_warnings(record=True) as said:
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
    for each in said:
        print(f"cls-export: {each.message}", file=sys.stderr)
    print(f"{options.target} written; its golden images have the answers of {options.model}")
    return 0


def _annotated(file: str) -> list[tuple[Path, str]]:
    """Read image paths and labels of an annotation file; the training packages check such files thoroughly."""
    try:
        rows = [
            json.loads(line)
            for line in Path(file).read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        found = [
            (Path(file).parent / row["image"], row["suffix"] if "suffix" in row else row["label"])
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{file}: expected lines such as {{'image': 'a.jpg', 'suffix': '23'}} ({type(error).__name__}: {error})"
        ) from error
    if not found:
        raise BundleError(f"{file}: holds no rows")
    for path, label in found:
        if not isinstance(label, str):
            raise BundleError(
                f"{file}: the label of {path.name} is {label!r}; expected a class's name as text"
            )
    return found
