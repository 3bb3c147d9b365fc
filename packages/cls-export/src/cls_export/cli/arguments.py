"""The arguments of each command. Importing this loads neither NumPy nor onnxruntime."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cls_export.cli.output import FORMATS
from cls_export.contract.arguments import add_choice
from cls_export.runtime.arguments import MAX_THREADS
from cls_export.sharing.references import FORMS

MAX_CALIBRATION_IMAGES: Final = 512

RESIZE_CHOICES: Final = ("squash", "letterbox", "shortest_edge")
RESAMPLE_CHOICES: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""The values of `Preprocessing.resize` and `Preprocessing.resample`. That class takes longer to
import than a help text should take to print."""

ANNOTATION_EXAMPLE: Final = '{"image": "a.jpg", "suffix": "23"}'
"""A line of an annotation file."""

_BUNDLE_HELP = "the export/ folder of a run, or its model.onnx"
_NEEDS_EXTRA = 'Needs: pip install "cls-export[torch]"'

_MAX_SIDE = 8192
_MAX_BATCH = 4096
_MAX_TOP_K = 1_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `cls-export`.

    Attributes:
        handler: Module in `cls_export.cli` and name of the function that runs it.
        summary: One line for the list of commands.
        description: What the command does.
        example: A call that works.
        add_arguments: Adds its arguments to a parser.
    """

    handler: tuple[str, str]
    summary: str
    description: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, or folders to search for them"
    )
    add_choice(
        parser,
        "--format",
        sorted(FORMATS),
        default="table",
        help="output format; jsonl has one JSON object per line (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k",
        type=_whole_number(_MAX_TOP_K),
        default=1,
        metavar="K",
        help="classes per image (table and jsonl; default: %(default)s)",
    )
    parser.add_argument("--logits", action="store_true", help="add the raw logits (jsonl and csv)")


def _add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="the export/ folder of a run")


def _add_push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="the export/ folder of a run")
    parser.add_argument("target", metavar="TARGET", help=f"where to, with a tag: {FORMS}")


def _add_pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="what to fetch: the same, or with @sha256:DIGEST instead of :TAG; "
        "hf://OWNER/REPOSITORY@COMMIT",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="the folder to write; an older bundle there is replaced"
    )


def _add_info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    parser.add_argument("--json", action="store_true", help="print the labels mapping as JSON")


def _add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    parser.add_argument(
        "--batch",
        type=_whole_number(_MAX_BATCH),
        nargs="+",
        default=[1, 8, 32],
        metavar="N",
        help="images per call (default: 1 8 32)",
    )
    parser.add_argument(
        "--size",
        type=_whole_number(_MAX_SIDE),
        nargs=2,
        default=[40, 30],
        metavar=("H", "W"),
        help="image size in px (default: 40 30)",
    )
    parser.add_argument(
        "--threads",
        type=_whole_number(MAX_THREADS),
        metavar="N",
        help="threads (default: one per physical core)",
    )


def _add_quantize_arguments(parser: argparse.ArgumentParser) -> None:
    _add_conversion_arguments(parser)
    parser.add_argument(
        "--calibration-images",
        metavar="JSONL",
        required=True,
        help="training images, in lines of the same form; at most "
        f"{MAX_CALIBRATION_IMAGES} of them are used",
    )


def _add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="the export/ folder of a run")
    parser.add_argument("target", metavar="TARGET", help="the folder to write")
    parser.add_argument(
        "--eval-images",
        metavar="JSONL",
        required=True,
        help=f"images that the model was not trained on, in lines such as {ANNOTATION_EXAMPLE}",
    )
    parser.add_argument(
        "--max-accuracy-drop",
        type=_share,
        default=0.005,
        metavar="SHARE",
        help="write nothing, and exit with 1, if the accuracy drops by more than this, 0 to 1 "
        "(default: %(default)s)",
    )


def _add_migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the ONNX file, from images to logits")
    parser.add_argument("mapping", metavar="MAPPING", help="the model's labels_mapping.json")
    parser.add_argument("target", metavar="TARGET", help="the folder to write")
    parser.add_argument(
        "--golden",
        metavar="IMAGE",
        nargs="+",
        required=True,
        help="a few image files to copy into the bundle for `cls-export verify`",
    )
    parser.add_argument(
        "--size",
        type=_whole_number(_MAX_SIDE),
        nargs=2,
        metavar=("H", "W"),
        help="input size in px, if the model leaves it free",
    )
    add_choice(parser, "--resize", RESIZE_CHOICES, help="how images were resized (default: squash)")
    parser.add_argument(
        "--resize-to",
        type=_whole_number(_MAX_SIDE),
        metavar="PX",
        help="for --resize shortest_edge: length of the shorter side before the crop",
    )
    add_choice(parser, "--resample", RESAMPLE_CHOICES, help="resampling filter (default: bilinear)")


def _whole_number(largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() takes quadratic time for long texts.
        if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= largest:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of 1 to {largest}, got {text}"
            )
        return int(text)

    return parse


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number of 0 to 1, got {text}")
    return value


COMMANDS: Final = {
    "predict": Command(
        handler=("inference", "predict"),
        summary="classify images",
        description="Classify image files. Folders are searched for files with the suffix of an "
        "image format; other files in them are skipped and counted on stderr. Exits with 1 if an "
        "image cannot be classified, and with 2 if a path does not exist.",
        example="cls-export predict runs/NAME/export crops/ --format jsonl > predictions.jsonl",
        add_arguments=_add_predict_arguments,
    ),
    "verify": Command(
        handler=("inference", "verify"),
        summary="check that this machine gives the predictions of training",
        description="Check the SHA-256 of the files of a bundle. Then classify its golden images, "
        "and compare each step from the file's bytes to the label with the values from training.",
        example="cls-export verify runs/NAME/export",
        add_arguments=_add_verify_arguments,
    ),
    "push": Command(
        handler=("share", "push"),
        summary="push a bundle to a registry or to object storage",
        description="Verify a bundle, store its files, and print the digest, which names exactly "
        "this bundle. The files include the images of golden/, so push them only to where these "
        "images may be. Credentials come from docker login, or from the tools of the storage. "
        'Needs: pip install "cls-export[registry]" for oci://, [gcs] for gs://, [s3] for s3://, '
        "[hf] for hf://.",
        example="cls-export push runs/NAME/export oci://registry.example.com/models/jersey:v1",
        add_arguments=_add_push_arguments,
    ),
    "pull": Command(
        handler=("share", "pull"),
        summary="fetch a bundle by digest or tag, and verify it",
        description="Fetch a bundle, compare the SHA-256 of every file, run its self-test, and "
        "only then write the folder. Prints the digest. Needs the same extras as push.",
        example="cls-export pull oci://registry.example.com/models/jersey@sha256:DIGEST jersey",
        add_arguments=_add_pull_arguments,
    ),
    "info": Command(
        handler=("inference", "info"),
        summary="describe a bundle",
        description="Print the classes, input, calibration, thresholds, and run of a bundle.",
        example="cls-export info runs/NAME/export",
        add_arguments=_add_info_arguments,
    ),
    "bench": Command(
        handler=("inference", "bench"),
        summary="measure latency and throughput",
        description="Measure latency and throughput on random images, from array to label.",
        example="cls-export bench runs/NAME/export --batch 1 32 --size 64 64",
        add_arguments=_add_bench_arguments,
    ),
    "quantize": Command(
        handler=("convert", "quantize"),
        summary="convert a bundle to int8",
        description="Write an int8 bundle, for CPUs, and print its accuracy, size, and speed. "
        f"{_NEEDS_EXTRA}",
        example="cls-export quantize runs/NAME/export INT8 --calibration-images train.jsonl "
        "--eval-images valid.jsonl",
        add_arguments=_add_quantize_arguments,
    ),
    "float16": Command(
        handler=("convert", "float16"),
        summary="convert a bundle to float16",
        description="Write a float16 bundle of half the size, for GPUs, and print its accuracy, "
        f"size, and speed. {_NEEDS_EXTRA}",
        example="cls-export float16 runs/NAME/export FLOAT16 --eval-images valid.jsonl",
        add_arguments=_add_conversion_arguments,
    ),
    "migrate": Command(
        handler=("convert", "migrate_model"),
        summary="convert an older ONNX file and its labels mapping",
        description="Write a bundle from an older ONNX file and a labels mapping with only "
        f"num_classes, class_to_idx, idx_to_class, and normalization. {_NEEDS_EXTRA}",
        example="cls-export migrate old.onnx old_mapping.json BUNDLE --golden a.jpg b.jpg",
        add_arguments=_add_migrate_arguments,
    ),
}
