"""Commands that use a bundle: predict, verify, info, bench."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cls_export.bundle.golden import verify_bundle
from cls_export.cli.output import FORMATS, escape_line
from cls_export.cli.progress import with_progress
from cls_export.contract.calibration import Calibration, Reject
from cls_export.contract.errors import BundleError, ImageError
from cls_export.contract.image_folder import FoundImages, find_images
from cls_export.contract.image_formats import IMAGE_SUFFIXES
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.runtime.bundle_files import Bundle
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure_latency

_MAX_LISTED_CLASSES = 12
_MAX_LISTED_PATHS = 5
_MAX_BENCH_PIXELS = 10**9
_UNCHECKED = (
    "cannot be checked, because the bundle does not state the SHA-256 of its files; to add it, "
    "export the bundle again"
)


def predict(options: argparse.Namespace) -> int:
    """Classify images and print the predictions; return 1 if an image failed.

    Raises:
        BundleError: An option has no effect, or there are no image files.
        ImageError: A given path does not exist.
    """
    if options.format == "csv" and options.top_k > 1:
        raise BundleError("--top-k has no effect on csv; use --format jsonl")
    if options.format == "table" and options.logits:
        raise BundleError("--logits has no effect on the table; use --format jsonl")

    found = _find_images(options.images)
    files = found.images
    skipped = escape_line(found.describe_skipped())
    if not files:
        detail = f"skipped: {skipped}; " if skipped else ""
        raise BundleError(
            f"no image files in {', '.join(options.images)} "
            f"({detail}accepted suffixes: {', '.join(sorted(IMAGE_SUFFIXES))})"
        )

    classifier = Classifier(options.bundle)
    writer = FORMATS[options.format](sys.stdout, classifier.labels.classes, options.logits)

    failed = 0
    results = classifier.stream(files, options.top_k, on_error="return")
    pairs = zip(files, results, strict=True)
    for path, result in with_progress(pairs, len(files)):
        if isinstance(result, ImageError):
            failed += 1
            _print_note(str(result))
        else:
            writer.write(path, result)
    writer.close()

    if skipped:
        _print_note(f"skipped {found.skipped.total():,} files that are no images: {skipped}")
    if failed:
        _print_note(f"{failed} of {len(files)} images could not be classified")
        return 1
    return 0


def _find_images(arguments: Sequence[str]) -> FoundImages:
    """Return the given files, and the images in the given folders.

    Raises:
        ImageError: A path does not exist.
    """
    missing = [path for path in arguments if not Path(path).exists()]
    if missing:
        listed = ", ".join(missing[:_MAX_LISTED_PATHS])
        if len(missing) > _MAX_LISTED_PATHS:
            listed += f", and {len(missing) - _MAX_LISTED_PATHS} more"
        raise ImageError(f"{listed}: no such file or folder; nothing was classified")
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    for path in map(Path, arguments):
        if not path.is_dir():
            images.append(path)
            continue
        found = find_images(path)
        images += found.images
        skipped += found.skipped
    return FoundImages(tuple(images), skipped)


def _print_note(text: str) -> None:
    print(f"cls-export: {escape_line(text)}", file=sys.stderr)


def verify(options: argparse.Namespace) -> int:
    """Run the self-test of a bundle; return 1 if an image gives another result."""
    report = verify_bundle(options.bundle)
    for failure in report.failures:
        print(f"FAILED {escape_line(failure)}", file=sys.stderr)
    if not report.has_checked_hash:
        _print_note(f"the integrity {_UNCHECKED}")

    verdict = "passed" if report.passed else f"{len(report.failures)} FAILED"
    print(
        f"{report.images} golden images: {verdict}; "
        f"largest logit difference {report.max_difference:.2g}"
    )
    return 0 if report.passed else 1


def info(options: argparse.Namespace) -> int:
    """Describe a bundle."""
    classifier = Classifier(options.bundle)
    bundle = Bundle.locate(options.bundle)

    if options.json:
        labels = LabelsMapping.load(bundle.labels) if bundle.labels else classifier.labels
        print(_escape_json(labels.to_json()), end="")
        return 0

    rows = _summarize(classifier, bundle.model)
    for name, value in rows.items():
        print(f"{name:<14}{escape_line(value)}")
    return 0


def _escape_json(text: str) -> str:
    """Escape characters outside of ASCII if some of them control the terminal."""
    if escape_line(text.replace("\n", "")) == text.replace("\n", ""):
        return text
    return json.dumps(json.loads(text), indent=2) + "\n"


def _summarize(classifier: Classifier, model: Path) -> dict[str, str]:
    labels = classifier.labels
    preprocessing = labels.preprocessing
    height, width = preprocessing.size
    classes = ", ".join(map(repr, labels.classes[:_MAX_LISTED_CLASSES]))
    if labels.num_classes > _MAX_LISTED_CLASSES:
        classes += ", …"

    rows = {
        "model": f"{model}, {model.stat().st_size / 1e6:.1f} MB",
        "integrity": "SHA-256 of the model checked",
        "classes": f"{labels.num_classes}: {classes}",
        "input": f"{height} x {width} px, {preprocessing.resize}, {preprocessing.resample}",
        "confidence": _describe_calibration(labels.calibration),
        "rejects": _describe_reject(labels.reject),
    }

    if not classifier.has_checked_hash:
        rows["integrity"] = _UNCHECKED

    origin = labels.provenance
    if labels.confidence_notes:
        rows["notes"] = "; ".join(labels.confidence_notes)
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


def bench(options: argparse.Namespace) -> int:
    """Measure latency and throughput."""
    height, width = options.size
    largest = max(options.batch)
    pixels = largest * height * width
    if pixels > _MAX_BENCH_PIXELS:
        raise BundleError(
            f"--batch {largest} with --size {height} {width} needs {3 * pixels / 1e9:.0f} GB for "
            f"the images; choose at most {3 * _MAX_BENCH_PIXELS / 1e9:.0f} GB"
        )
    classifier = Classifier(options.bundle, threads=options.threads, batch_size=largest)

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
