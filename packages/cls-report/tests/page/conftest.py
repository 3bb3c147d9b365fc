"""Sample reports like those of a real run."""

import base64
import colorsys
import io
import operator
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cls_report.page.blocks import (
    CellValue,
    Chart,
    Code,
    ConfusionMatrix,
    Facts,
    Gallery,
    GalleryItem,
    Report,
    Score,
    Scores,
    Section,
    Series,
    Table,
    Text,
)
from cls_report.statistics.estimates import Estimate

NUMBERS = tuple(sorted(["", "00", *map(str, range(41))]))


@pytest.fixture(scope="session")
def make() -> Callable[..., Report]:
    """Return a function that builds a report from classes and numbers of images."""
    return make_report


@pytest.fixture(scope="session")
def rich_report() -> Report:
    return make_report(NUMBERS, images=364, included=364)


def make_images(count: int) -> tuple[str, ...]:
    """Draw numbers on images of 29x40 pixels, as `data:` URLs."""
    return tuple(_draw_image(index) for index in range(count))


@cache
def _draw_image(index: int) -> str:
    background = tuple(
        round(255 * level) for level in colorsys.hsv_to_rgb(index * 0.618 % 1, 0.6, 0.5)
    )
    image = Image.new("RGB", (29, 40), background)
    ImageDraw.Draw(image).text((8, 14), str(index % 100), fill="white")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def estimate(correct: int, total: int) -> Estimate:
    """Return a share with an interval similar to Wilson's."""
    if total == 0:
        return Estimate(value=None)
    share, half = correct / total, 0.9 / np.sqrt(total + 2)
    return Estimate(value=share, low=max(0.0, share - half), high=min(1.0, share + 0.7 * half))


def make_confusion_matrix(
    classes: tuple[str, ...], images: int, included: int, error_rate: float = 0.11
) -> ConfusionMatrix:
    """Draw mostly correct predictions; the page includes the first few images."""
    generator = np.random.default_rng(0)
    size = len(classes)
    labels = np.minimum(generator.geometric(min(0.5, 3 / size), images) - 1, size - 1)
    confused = (labels + generator.integers(1, max(2, size // 4), images)) % size
    predicted = np.where(generator.random(images) < error_rate, confused, labels)
    confidence = np.where(
        predicted == labels,
        generator.integers(600, 1000, images),
        generator.integers(250, 960, images),
    )
    return ConfusionMatrix(
        title="valid, best weights",
        classes=classes,
        labels=tuple(labels.tolist()),
        predicted=tuple(predicted.tolist()),
        confidence=tuple(confidence.tolist()),
        names=tuple(
            f"valid/game-{index % 7}/frame_{index:06d}_player_{index % 13}.jpg"
            for index in range(images)
        ),
        images=tuple(index if index < included else -1 for index in range(images)),
        note="Softmax confidence.",
    )


def make_classes_table(matrix: ConfusionMatrix) -> Table:
    """Return one row per class; some estimates are unknown."""
    labels, predicted = np.array(matrix.labels), np.array(matrix.predicted)
    rows: list[tuple[CellValue, ...]] = []
    for index, name in enumerate(matrix.classes):
        support = int((labels == index).sum())
        answered = int((predicted == index).sum())
        correct = int(((labels == index) & (predicted == index)).sum())
        change = Estimate(
            value=(index % 5 - 2) / 50, low=(index % 5 - 4) / 50, high=(index % 5) / 50
        )
        loss = 0.9 / support if support else None
        recall, precision = estimate(correct, support), estimate(correct, answered)
        rows.append((name, support, recall, precision, change, loss))
    return Table.from_rows(
        "Per class",
        [
            ("class", "text"),
            ("images", "count"),
            ("recall", "share_estimate"),
            ("precision", "share_estimate"),
            ("change", "share_estimate"),
            ("loss", "number"),
        ],
        rows,
        note="Metrics of an absent class are unknown.",
    )


def make_curves() -> tuple[Chart, ...]:
    """Return training curves with a gap, and a calibration curve with bounds and points."""
    epochs = tuple(float(epoch) for epoch in range(40))
    falling = [
        2.9 * float(np.exp(-epoch / 9)) + 0.25 + 0.05 * float(np.sin(epoch)) for epoch in epochs
    ]
    valid = [value + 0.25 + epoch / 200 for value, epoch in zip(falling, epochs, strict=True)]
    loss = Chart(
        title="Loss",
        x_title="epoch",
        y_title="loss",
        x_unit="count",
        series=(
            Series(name="train", x=epochs, y=tuple(falling)),
            Series(name="valid", x=epochs, y=(*valid[:20], None, None, *valid[22:])),
            Series(name="floor", x=(0.0, 39.0), y=(0.25, 0.25), style="dashed"),
        ),
        note="Two epochs have no validation.",
    )
    confidence = tuple(np.linspace(0.05, 0.95, 10).tolist())
    accuracy = [min(1.0, value * 0.92 + 0.02) for value in confidence]
    calibration = Chart(
        title="Calibration",
        x_title="confidence",
        y_title="accuracy",
        x_unit="share",
        y_unit="share",
        series=(
            Series(name="perfect", x=(0.0, 1.0), y=(0.0, 1.0), style="dashed"),
            Series(
                name="before",
                x=confidence,
                y=tuple(accuracy),
                low=tuple(max(0.0, value - 0.09) for value in accuracy),
                high=tuple(min(1.0, value + 0.07) for value in accuracy),
            ),
            Series(
                name="after",
                x=confidence,
                y=tuple(0.98 * value for value in confidence),
                style="points",
            ),
        ),
    )
    return loss, calibration


def make_report(
    classes: tuple[str, ...], images: int, included: int, urls: tuple[str, ...] | None = None
) -> Report:
    """Build a report with each kind of block."""
    matrix = make_confusion_matrix(classes, images, included)
    correct = sum(map(operator.eq, matrix.labels, matrix.predicted))
    scores = (
        Score(
            title="top-1",
            estimate=estimate(correct, images),
            unit="share",
            note=f"{correct} of {images}",
        ),
        Score(
            title="macro-F1",
            estimate=Estimate(value=0.842, low=0.791, high=0.885),
            unit="share",
            note="mean over classes",
        ),
        Score(
            title="calibration error",
            estimate=Estimate(value=0.031, low=0.02, high=0.055),
            unit="share",
        ),
        Score(
            title="log-likelihood",
            estimate=Estimate(value=0.4312, low=0.35, high=0.52),
            unit="number",
            note="nats",
        ),
        Score(
            title="change",
            estimate=Estimate(value=0.012, low=-0.02, high=0.04),
            unit="share",
            note="paired",
        ),
    )
    mistakes = [
        index for index in range(included) if matrix.labels[index] != matrix.predicted[index]
    ][:8]
    items = tuple(
        GalleryItem(
            image=index,
            overlay=(index + 1) % included,
            title=classes[matrix.predicted[index]],
            lines=(
                f"label {classes[matrix.labels[index]]}, confidence 93%",
                matrix.names[index],
            ),
            is_wrong=order < 6,
        )
        for order, index in enumerate(mistakes)
    )
    config = "\n".join(f"setting_{index}: {index / 7:.4f}" for index in range(60))
    return Report(
        title="jersey-resnet18-seed1",
        subtitle="Training run · 24 November 2026",
        images=urls or make_images(included),
        sections=(
            Section(
                key="summary",
                title="Summary",
                blocks=(
                    Text(
                        text="The accuracy on 364 validation images is 89%.",
                        tone="verdict",
                    ),
                    Scores(title="Validation, 364 images", scores=scores),
                    Text(
                        text="Six classes have fewer than four images; the metrics are imprecise.",
                        tone="warning",
                    ),
                    Text(
                        text="Intervals: 95%, Wilson for shares, bootstrap by game for the rest.",
                        tone="muted",
                    ),
                    Facts(
                        facts={
                            "model": "resnet18",
                            "weights": "best.ckpt, epoch 31",
                            "commit": "6ee33f3" * 6,
                        }
                    ),
                ),
            ),
            Section(key="curves", title="Curves", blocks=make_curves()),
            Section(key="confusion", title="Confusion", blocks=(matrix,)),
            Section(key="classes", title="Classes", blocks=(make_classes_table(matrix),)),
            Section(
                key="mistakes",
                title="Mistakes",
                blocks=(Gallery(title="Most confident mistakes", items=items),),
            ),
            Section(
                key="reproduce",
                title="Reproduce this run",
                blocks=(
                    Code(
                        title="Command",
                        text="uv run apps/train experiment=jersey seed=1 run.name=jersey-seed1",
                    ),
                    Code(title="Configuration", text=config, folded=True),
                ),
            ),
        ),
    )
