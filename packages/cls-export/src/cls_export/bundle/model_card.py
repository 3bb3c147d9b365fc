"""The model card of a bundle: README.md, for people and for the Hugging Face Hub."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cls_export.contract.bundle_layout import CARD_FILE, LABELS_FILE, MAX_CARD_BYTES
from cls_export.contract.calibration import Calibration, Reject
from cls_export.contract.errors import BundleError
from cls_export.contract.files import read_bytes, sha256_hex, write_atomically
from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_export.contract.substitutes import refuse_substitute
from cls_export.contract.text import escape_control_characters, short_name

_MAX_LISTED_CLASSES = 100
_MAX_HASH_CHARACTERS = 200
_MAX_NOTE_CHARACTERS = 1_000
_UNKNOWN = "unknown: not stated at export"
_MARKUP = re.compile(r"[\\`*_\[\]<>&~|#!$]")


@dataclass(frozen=True, slots=True)
class CardFigure:
    """A measured figure.

    Attributes:
        split: Name of the images, such as `test`.
        metric: Such as `top-1 accuracy`.
        value: A share of 0 to 1.
        low: Lower end of the 95% confidence interval; None if unknown.
        high: Upper end.
        images: Number of images.
    """

    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    images: int


def write_model_card(
    folder: Path, labels: LabelsMapping, figures: Sequence[CardFigure] = (), *, note: str = ""
) -> None:
    """Write README.md with what is known about a model; what is unknown is said to be unknown.

    Args:
        folder: The draft of the bundle.
        labels: The labels mapping.
        figures: Results of the evaluation; empty if there was none.
        note: A sentence below the figures, such as the precision they belong to.
    """
    text = build_model_card(labels, figures, note=note)
    write_atomically(folder / CARD_FILE, text.encode())


def build_model_card(
    labels: LabelsMapping, figures: Sequence[CardFigure] = (), *, note: str = ""
) -> str:
    """Return the text of a model card, in Markdown; see `write_model_card`."""
    origin = labels.provenance
    sections = [
        "---\nlibrary_name: cls-export\npipeline_tag: image-classification\ntags:\n- onnx\n---",
        f"# Model card: {_code(origin.run) if origin.run is not None else 'image classifier'}",
        f"An image classifier with {labels.num_classes:,} classes, as an ONNX file with its "
        "labels, preprocessing, and self-test.",
        f'```sh\npip install "cls-export~={version("cls-export")}"\ncls-export verify FOLDER\n'
        "cls-export predict FOLDER IMAGES\n```",
        f"## Figures\n\n{_describe_figures(labels, figures)}",
    ]
    if note:
        sections.append(note)
    sections += [
        f"## Origin\n\n{_describe_origin(labels)}",
        f"## Classes\n\n{_describe_classes(labels)}",
        f"## Input\n\n{_describe_preprocessing(labels.preprocessing)}",
        f"## Confidence\n\n{_describe_confidence(labels.calibration, labels.reject)}",
        f"## Intended use\n\n{_describe_use(labels)}",
        f"## Limits\n\n{_describe_limits(labels, figures)}",
    ]
    return "\n\n".join(sections) + "\n"


def check_model_card(folder: Path, labels: LabelsMapping) -> None:
    """Compare README.md with the hash in the labels mapping, if that states one.

    Raises:
        BundleError: The card is missing or has changed.
    """
    if labels.card_sha256 is None:
        return
    path = folder / CARD_FILE
    if hash_model_card(path) != labels.card_sha256:
        raise BundleError(
            f"{path} is damaged or belongs to another bundle: its SHA-256 is not the card_sha256 "
            f"in {LABELS_FILE}. Copy or export the bundle again, and keep notes in another file"
        )


def hash_model_card(path: Path) -> str:
    """Return the SHA-256 of a model card with the line ends of Linux."""
    content = read_bytes(path, error=BundleError, max_bytes=MAX_CARD_BYTES)
    refuse_substitute(path, content)
    return sha256_hex(content.replace(b"\r\n", b"\n"))  # git may change the line ends


def _describe_figures(labels: LabelsMapping, figures: Sequence[CardFigure]) -> str:
    if not figures:
        return "None: no evaluation was given at export."

    lines = [
        "| images | metric | value | 95% confidence interval | count |",
        "|---|---|---|---|---|",
    ]
    for figure in figures:
        value = f"{figure.value:.1%}" if math.isfinite(figure.value) else "undefined"
        interval = _describe_interval(figure.low, figure.high)
        cells = [_cell(figure.split), _cell(figure.metric), value, interval, f"{figure.images:,}"]
        lines.append(f"| {' | '.join(cells)} |")

    table = "\n".join(lines)
    metric = labels.provenance.metric
    if metric is None:
        return table
    split = metric.name.partition("_")[0]
    return (
        f"{table}\n\nThe epoch of the weights was chosen by the results on {_code(split)}, so the "
        f"figures of {_code(split)} are optimistic."
    )


def _describe_interval(low: float | None, high: float | None) -> str:
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low == high:  # resampled images always gave the same, such as one class for all
        return "unknown: too few different results"
    return f"{low:.1%} to {high:.1%}"


def _describe_origin(labels: LabelsMapping) -> str:
    origin = labels.provenance
    weights = _UNKNOWN
    if origin.weights is not None:
        kind = "an exponential moving average" if origin.weights == "ema" else "as trained"
        weights = kind
    if origin.metric is not None:
        metric = origin.metric
        value = f"{metric.value:.4f}" if math.isfinite(metric.value) else "undefined"
        weights += f", selected by {_code(metric.name)} = {value} in epoch {metric.epoch + 1}"
    return "\n".join(
        [
            f"- Run: {_code(origin.run)}",
            f"- Commit of the training code: {_hash(origin.code_commit)}",
            f"- Fingerprint of the training data: {_hash(origin.data_fingerprint)}",
            f"- Weights: {weights}",
        ]
    )


def _describe_classes(labels: LabelsMapping) -> str:
    names = labels.classes[:_MAX_LISTED_CLASSES]
    listed = ", ".join([_code(name) for name in names])
    more = labels.num_classes - len(names)
    return f"{listed}, and {more:,} more in `{LABELS_FILE}`" if more else listed


def _describe_preprocessing(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.size
    return (
        f"RGB, {height} x {width} px (height x width), resized by `{preprocessing.resize}` with "
        f"`{preprocessing.resample}` resampling, then normalized with mean "
        f"{_numbers(preprocessing.mean)} and standard deviation {_numbers(preprocessing.std)}. "
        f"`{LABELS_FILE}` has every setting, and cls-export applies them."
    )


def _describe_confidence(calibration: Calibration | None, reject: Reject | None) -> str:
    text = "Softmax, not calibrated."
    if calibration is not None:
        text = f"Calibrated by {calibration.method} scaling on {calibration.images:,} images."
    if reject is None:
        return f"{text} No prediction is rejected."
    return (
        f"{text} Predictions below a confidence of {reject.threshold:.3f} are rejected; the "
        f"threshold was chosen for {reject.wanted} {reject.level:.1%} on {reject.images:,} images."
    )


def _describe_use(labels: LabelsMapping) -> str:
    height, width = labels.preprocessing.size
    return (
        "Classification of images like those of the training data, which the fingerprint above "
        f"identifies, into the classes above. Images of any size become {height} x {width} px."
    )


def _describe_limits(labels: LabelsMapping, figures: Sequence[CardFigure]) -> str:
    limits = [
        "The model knows only the classes above, and gives one of them to any image"
        + ("." if labels.reject is None else ", unless the prediction is rejected."),
        "Results on other kinds of images (other cameras, sizes, or subjects) are unknown.",
    ]
    if not figures:
        limits.append("No accuracy with a confidence interval is known.")
    if labels.calibration is None:
        limits.append("The confidence is not calibrated, so it is no probability of being correct.")
    for note in labels.confidence_notes:
        limits.append(f"Note of the calibration: {_escape(note)}.")
    limits.append(
        "The folder `golden/` contains images that were given at export, usually from the "
        "validation data. Whoever gets the bundle gets them."
    )
    return "\n".join([f"- {each}" for each in limits])


def _numbers(values: Sequence[float]) -> str:
    return ", ".join([f"{value:g}" for value in values])


def _escape(text: str) -> str:
    """Return a sentence from data on one line, without markup."""
    line = " ".join(escape_control_characters(text[:_MAX_NOTE_CHARACTERS]).split()).rstrip(".")
    return _MARKUP.sub(r"\\\g<0>", line)


def _hash(text: str | None) -> str:
    return _code(text, _MAX_HASH_CHARACTERS)


def _cell(text: str) -> str:
    return _code(text).replace("|", r"\|")


def _code(text: str | None, max_length: int = 60) -> str:
    """Return a name from data as inline code, which Markdown does not interpret."""
    if text is None:
        return _UNKNOWN
    name = short_name(text, max_length)
    longest = max([len(run) for run in re.findall("`+", name)], default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or name != name.strip() else ""
    return f"{fence}{space}{name}{space}{fence}"
