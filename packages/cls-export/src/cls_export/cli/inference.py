"""Commands that use a bundle: predict, verify, info, bench."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cls_export.bundle.golden import verify_bundle
from cls_export.cli.output import FORMATS
from cls_export.cli.progress import with_progress
from cls_export.contract.calibration import Calibration, Reject
from cls_export.contract.errors import BundleError, ImageError
from cls_export.contract.image_formats import IMAGE_SUFFIXES
from cls_export.runtime.bundle_files import Bundle
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure_latency

_MAX_LISTED_CLASSES = 12
_BUNDLE_HELP = "the export/ folder of a run, or its model.onnx"


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of the commands."""
    predict = commands.add_parser(
        "predict", help="classify images", description="Classify image files."
    )
    predict.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    predict.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, or folders to search for them"
    )
    predict.add_argument(
        "--format",
        choices=sorted(FORMATS),
        default="table",
        help="output format; jsonl has one JSON object per line (default: %(default)s)",
    )
    predict.add_argument(
        "--top-k",
        type=_positive,
        default=1,
        metavar="K",
        help="classes per image (table and jsonl; default: %(default)s)",
    )
    predict.add_argument("--logits", action="store_true", help="add the raw logits (jsonl and csv)")
    predict.set_defaults(run=_predict)

    verify = commands.add_parser(
        "verify",
        help="check that this machine gives the predictions of training",
        description="Classify the golden images in a bundle, and compare each step from the file's "
        "bytes to the label with the values from training.",
    )
    verify.add_argument("bundle", metavar="BUNDLE", help="the export/ folder of a run")
    verify.set_defaults(run=_verify)

    info = commands.add_parser(
        "info",
        help="describe a bundle",
        description="Print the classes, input, calibration, thresholds, and run of a bundle.",
    )
    info.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    info.add_argument("--json", action="store_true", help="print the labels mapping as JSON")
    info.set_defaults(run=_info)

    bench = commands.add_parser(
        "bench",
        help="measure latency and throughput",
        description="Measure latency and throughput on random images, from array to label.",
    )
    bench.add_argument("bundle", metavar="BUNDLE", help=_BUNDLE_HELP)
    bench.add_argument(
        "--batch",
        type=_positive,
        nargs="+",
        default=[1, 8, 32],
        metavar="N",
        help="images per call (default: 1 8 32)",
    )
    bench.add_argument(
        "--size",
        type=_positive,
        nargs=2,
        default=[40, 30],
        metavar=("H", "W"),
        help="image size in px (default: 40 30)",
    )
    bench.add_argument(
        "--threads", type=_positive, metavar="N", help="threads (default: one per physical core)"
    )
    bench.set_defaults(run=_bench)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def _predict(options: argparse.Namespace) -> int:
    if options.format == "csv" and options.top_k > 1:
        raise BundleError("--top-k has no effect on csv; use --format jsonl")
    if options.format == "table" and options.logits:
        raise BundleError("--logits has no effect on the table; use --format jsonl")

    files = list(_find_images(options.images))
    if not files:
        raise BundleError(
            f"no image files in {', '.join(options.images)} "
            f"(suffixes: {', '.join(sorted(IMAGE_SUFFIXES))})"
        )

    classifier = Classifier(options.bundle)
    writer = FORMATS[options.format](sys.stdout, classifier.labels.classes, options.logits)

    failed = 0
    results = classifier.stream(files, options.top_k, on_error="return")
    pairs = zip(files, results, strict=True)
    for path, result in with_progress(pairs, len(files)):
        if isinstance(result, ImageError):
            failed += 1
            print(f"cls-export: {result}", file=sys.stderr)
        else:
            writer.write(path, result)
    writer.close()

    if failed:
        summary = f"{failed} of {len(files)} images could not be classified"
        print(f"cls-export: {summary}", file=sys.stderr)
        return 1
    return 0


def _find_images(arguments: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, arguments):
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                yield file


def _verify(options: argparse.Namespace) -> int:
    report = verify_bundle(options.bundle)
    for failure in report.failures:
        print(f"FAILED {failure}", file=sys.stderr)

    verdict = "passed" if report.passed else f"{len(report.failures)} FAILED"
    print(
        f"{report.images} golden images: {verdict}; "
        f"largest logit difference {report.max_difference:.2g}"
    )
    return 0 if report.passed else 1


def _info(options: argparse.Namespace) -> int:
    classifier = Classifier(options.bundle)

    if options.json:
        print(classifier.labels.to_json(), end="")
        return 0

    bundle = Bundle.locate(options.bundle)
    rows = _summarize(classifier, bundle.model)
    for name, value in rows.items():
        print(f"{name:<14}{value}")
    return 0


def _summarize(classifier: Classifier, model: Path) -> dict[str, str]:
    labels = classifier.labels
    preprocessing = labels.preprocessing
    height, width = preprocessing.size
    classes = ", ".join(map(repr, labels.classes[:_MAX_LISTED_CLASSES]))
    if labels.num_classes > _MAX_LISTED_CLASSES:
        classes += ", …"

    rows = {
        "model": f"{model}, {model.stat().st_size / 1e6:.1f} MB",
        "classes": f"{labels.num_classes}: {classes}",
        "input": f"{height} x {width} px, {preprocessing.resize}, {preprocessing.resample}",
        "confidence": _describe_calibration(labels.calibration),
        "rejects": _describe_reject(labels.reject),
    }

    origin = labels.provenance
    metric = origin.metric
    if metric is not None:
        score = f"{metric.name} {metric.value:.4f}"
        rows["weights"] = f"{origin.weights}, {score}, epoch {metric.epoch + 1}"
    rows["run"] = origin.run or "unknown"
    rows["commit"] = origin.code_commit or "unknown"
    rows["data"] = origin.data_fingerprint or "unknown"
    rows["runs on"] = ", ".join(classifier.providers)
    return rows


def _describe_calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return "softmax, not calibrated"

    method = f"{calibration.method} scaling"
    if calibration.method == "temperature":
        temperature = 1 / calibration.scale[0]
        method += f" by {temperature:.3g}"
    return f"calibrated by {method} on {calibration.images:,} images"


def _describe_reject(reject: Reject | None) -> str:
    if reject is None:
        return "nothing"
    threshold = f"below {reject.threshold:.3f}"
    if reject.by_class:
        threshold += f" (other thresholds for {len(reject.by_class)} classes)"
    target = f"{reject.wanted} {reject.level:.1%}"
    return f"{threshold}, chosen for {target} on {reject.images:,} images"


def _bench(options: argparse.Namespace) -> int:
    classifier = Classifier(options.bundle, threads=options.threads, batch_size=max(options.batch))
    height, width = options.size

    print(f"{'batch':>6}{'median, ms':>12}{'p95, ms':>10}{'images/s':>10}")
    for batch_size in options.batch:
        latency = measure_latency(classifier, batch_size, height=height, width=width)
        row = [
            f"{batch_size:>6}",
            f"{latency.median_ms:>12.2f}",
            f"{latency.p95_ms:>10.2f}",
            f"{latency.images_per_second:>10.0f}",
        ]
        print("".join(row), flush=True)
    return 0
