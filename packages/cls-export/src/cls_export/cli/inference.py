"""Commands that use a bundle: predict, verify, info, bench."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cls_export.bundle.golden import verify_bundle
from cls_export.cli.output import FORMATS
from cls_export.cli.progress import with_progress
from cls_export.contract.errors import BundleError, ImageError
from cls_export.contract.image_formats import IMAGE_SUFFIXES
from cls_export.runtime.bundle import Bundle
from cls_export.runtime.classifier import Classifier
from cls_export.runtime.latency import measure


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add a parser for each."""
    predict = commands.add_parser(
        "predict", help="classify images", description="Classify image files."
    )
    predict.add_argument("bundle", metavar="BUNDLE", help="an exported folder, or a model.onnx")
    predict.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, or folders to search for them"
    )
    predict.add_argument(
        "--format", choices=sorted(FORMATS), default="table", help="output (default: %(default)s)"
    )
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

    info = commands.add_parser(
        "info",
        help="say what a bundle is",
        description="Say what a bundle answers, how, and where it comes from.",
    )
    info.add_argument("bundle", metavar="BUNDLE", help="an exported folder, or a model.onnx")
    info.add_argument("--json", action="store_true", help="the whole labels mapping, for programs")
    info.set_defaults(run=_info)

    bench = commands.add_parser(
        "bench",
        help="time a bundle on this machine",
        description="Time answers for random images, decoded already, from array to label.",
    )
    bench.add_argument("bundle", metavar="BUNDLE", help="an exported folder, or a model.onnx")
    bench.add_argument(
        "--batch",
        type=_positive,
        nargs="+",
        default=[1, 8, 32],
        metavar="N",
        help="images a call (default: 1 8 32)",
    )
    bench.add_argument(
        "--size",
        type=_positive,
        nargs=2,
        default=[40, 30],
        metavar=("H", "W"),
        help="of an image, px",
    )
    bench.add_argument(
        "--threads", type=_positive, metavar="N", help="threads (default: onnxruntime's choice)"
    )
    bench.set_defaults(run=_bench)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _predict(options: argparse.Namespace) -> int:
    if (options.format == "csv" and options.top_k > 1) or (
        options.format == "table" and options.logits
    ):
        raise BundleError(
            "csv has no place for --top-k, and the table none for --logits; use --format jsonl"
        )
    files = list(_files(options.images))
    if not files:
        raise BundleError(
            f"no image files under {', '.join(options.images)} ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    classifier = Classifier(options.bundle)
    writer = FORMATS[options.format](sys.stdout, classifier.labels.classes, options.logits)
    failed = 0
    answers = zip(files, classifier.stream(files, options.top_k, bad="return"), strict=True)
    for path, answer in with_progress(answers, len(files)):
        if isinstance(answer, ImageError):
            failed += 1
            print(f"cls-export: {answer}", file=sys.stderr)
        else:
            writer.write(path, answer)
    writer.close()
    if failed:
        print(
            f"cls-export: {failed} image(s) could not be classified; they are named above",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _files(arguments: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, arguments):
        if path.is_dir():
            yield from sorted(
                file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES
            )
        else:
            yield path


def _verify(options: argparse.Namespace) -> int:
    report = verify_bundle(options.bundle)
    for failure in report.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    verdict = "passed" if report.passed else f"{len(report.failures)} FAILED"
    print(
        f"{report.images} golden images, {verdict}; largest difference of a logit {report.max_difference:.2g}"
    )
    return 0 if report.passed else 1


def _info(options: argparse.Namespace) -> int:
    classifier = Classifier(options.bundle)
    labels = classifier.labels
    if options.json:
        print(labels.to_json(), end="")
        return 0
    for name, value in _described(classifier, Bundle.locate(options.bundle).model).items():
        print(f"{name:<14}{value}")
    return 0


def _described(classifier: Classifier, model: Path) -> dict[str, str]:
    labels = classifier.labels
    height, width = labels.preprocessing.size
    shown = ", ".join(map(repr, labels.classes[:12])) + (", …" if labels.num_classes > 12 else "")
    rows = {
        "model": f"{model}, {model.stat().st_size / 1e6:.1f} MB",
        "classes": f"{labels.num_classes}: {shown}",
        "input": f"{height} x {width} px, {labels.preprocessing.resize}, {labels.preprocessing.resample}",
        "confidence": "the plain softmax, not calibrated",
        "rejects": "nothing",
    }
    if (calibration := labels.calibration) is not None:
        temperature = (
            f", {1 / calibration.scale[0]:.3g}" if calibration.method == "temperature" else ""
        )
        rows["confidence"] = (
            f"calibrated by {calibration.method}{temperature}, on {calibration.images:,} images"
        )
    if (reject := labels.reject) is not None:
        own = f" ({len(reject.by_class)} classes have their own)" if reject.by_class else ""
        rows["rejects"] = (
            f"below {reject.threshold:.3f}{own}, for a {reject.wanted} of {reject.level:.1%} "
            f"on {reject.images:,} images"
        )
    origin = labels.provenance
    if origin.metric is not None:
        rows["weights"] = (
            f"{origin.weights}, {origin.metric.name} {origin.metric.value:.4f}, epoch {origin.metric.epoch + 1}"
        )
    for name, value in (
        ("run", origin.run),
        ("commit", origin.code_commit),
        ("data", origin.data_fingerprint),
    ):
        rows[name] = value or "unknown"
    rows["runs on"] = ", ".join(classifier.providers)
    return rows


def _bench(options: argparse.Namespace) -> int:
    classifier = Classifier(options.bundle, threads=options.threads, batch_size=max(options.batch))
    height, width = options.size
    print(f"{'batch':>6}{'median, ms':>12}{'p95, ms':>10}{'images/s':>10}")
    for each in measure(classifier, options.batch, height=height, width=width):
        print(
            f"{each.batch:>6}{each.median:>12.2f}{each.p95:>10.2f}{each.images_per_second:>10.0f}",
            flush=True,
        )
    return 0
