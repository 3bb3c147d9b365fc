"""Commands of `cls-export`. Exit codes: 0 all well, 1 some images or checks failed, 2 the call or bundle is wrong."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cls_export.errors import BundleError, ImageError
from cls_export.golden import verify_bundle
from cls_export.output import FORMATS
from cls_export.runtime import Classifier

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BundleError as error:
        print(f"cls-export: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cls-export", description="Run and check exported image classifiers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="classify images", description="Classify image files.")
    predict.add_argument("bundle", metavar="BUNDLE", help="an exported folder, or a model.onnx")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders to search for them")
    predict.add_argument("--format", choices=sorted(FORMATS), default="table", help="output (default: %(default)s)")
    predict.add_argument(
        "--top-k",
        type=_positive,
        default=1,
        metavar="K",
        help="classes to show (table and jsonl; default: %(default)s)",
    )
    predict.add_argument("--logits", action="store_true", help="add the raw logits (jsonl and csv)")
    predict.set_defaults(run=_predict)

    verify = commands.add_parser(
        "verify",
        help="re-run a bundle's golden images",
        description="Re-run a bundle's golden images from file bytes to label and compare with what training got.",
    )
    verify.add_argument("bundle", metavar="BUNDLE", help="an exported folder")
    verify.set_defaults(run=_verify)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _predict(options: argparse.Namespace) -> int:
    if (options.format == "csv" and options.top_k > 1) or (options.format == "table" and options.logits):
        raise BundleError("csv has no place for --top-k, and the table none for --logits; use --format jsonl")
    files = list(_files(options.images))
    if not files:
        raise BundleError(f"no image files under {', '.join(options.images)} ({', '.join(sorted(IMAGE_SUFFIXES))})")
    classifier = Classifier(options.bundle)
    writer = FORMATS[options.format](sys.stdout, classifier.labels.classes, options.logits)
    failed = 0
    for path, answer in zip(files, classifier.stream(files, options.top_k, bad="return"), strict=True):
        if isinstance(answer, ImageError):
            failed += 1
            print(f"cls-export: {answer}", file=sys.stderr)
        else:
            writer.write(path, answer)
    writer.close()
    if failed:
        print(f"cls-export: {failed} image(s) could not be classified; they are named above", file=sys.stderr)
    return 1 if failed else 0


def _files(arguments: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, arguments):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


def _verify(options: argparse.Namespace) -> int:
    report = verify_bundle(options.bundle)
    for failure in report.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    verdict = "passed" if report.passed else f"{len(report.failures)} FAILED"
    print(f"{report.images} golden images, {verdict}; largest difference of a logit {report.max_difference:.2g}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
