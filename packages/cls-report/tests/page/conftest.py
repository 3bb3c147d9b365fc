"""Reports to render: made up, yet like those of a real run."""

import base64
import colorsys
import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cls_report.page.blocks import (
    Chart,
    Code,
    Column,
    Confusion,
    Estimate,
    Facts,
    Gallery,
    Report,
    Score,
    Scores,
    Section,
    Series,
    Shown,
    Table,
    Text,
)

NUMBERS = tuple(sorted(["", "00", *map(str, range(41))]))


@pytest.fixture(scope="session")
def make() -> Callable[..., Report]:
    """What makes a report, with each kind of block, of some classes, images, and pictured ones."""
    return make_report


@pytest.fixture(scope="session")
def rich_report() -> Report:
    return make_report(NUMBERS, images=364, pictured=364)


def make_pictures(count: int) -> tuple[str, ...]:
    """Crops of 29x40 pixels with a number on them, as `data:` addresses."""
    return tuple(_picture(index) for index in range(count))


@cache
def _picture(index: int) -> str:
    back = tuple(round(255 * level) for level in colorsys.hsv_to_rgb(index * 0.618 % 1, 0.6, 0.5))
    image = Image.new("RGB", (29, 40), back)
    ImageDraw.Draw(image).text((8, 14), str(index % 100), fill="white")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def estimate(right: int, of: int) -> Estimate:
    """A share with an interval that looks like Wilson's."""
    if of == 0:
        return Estimate(value=None)
    share, half = right / of, 0.9 / np.sqrt(of + 2)
    return Estimate(value=share, low=max(0.0, share - half), high=min(1.0, share + 0.7 * half))


def make_confusion(
    classes: tuple[str, ...], images: int, pictured: int, wrong: float = 0.11
) -> Confusion:
    """Predictions of which most are right, and of which the first few have a picture."""
    chance = np.random.default_rng(0)
    size = len(classes)
    truth = np.minimum(chance.geometric(min(0.5, 3 / size), images) - 1, size - 1)
    near = (truth + chance.integers(1, max(2, size // 4), images)) % size
    answer = np.where(chance.random(images) < wrong, near, truth)
    confidence = np.where(
        answer == truth, chance.integers(600, 1000, images), chance.integers(250, 960, images)
    )
    return Confusion(
        title="valid, best weights",
        classes=classes,
        truth=tuple(truth.tolist()),
        answer=tuple(answer.tolist()),
        confidence=tuple(confidence.tolist()),
        names=tuple(
            f"valid/game-{index % 7}/frame_{index:06d}_player_{index % 13}.jpg"
            for index in range(images)
        ),
        pictures=tuple(index if index < pictured else -1 for index in range(images)),
        note="Rows are the truth, columns the answer.",
    )


def make_classes_table(confusion: Confusion) -> Table:
    """A row a class: supports, estimates, some of them unknown."""
    truth, answer = np.array(confusion.truth), np.array(confusion.answer)
    of = [int((truth == index).sum()) for index in range(len(confusion.classes))]
    right = [
        int(((truth == index) & (answer == index)).sum()) for index in range(len(confusion.classes))
    ]
    answered = [int((answer == index).sum()) for index in range(len(confusion.classes))]
    recall = tuple(estimate(*pair) for pair in zip(right, of, strict=True))
    precision = tuple(estimate(*pair) for pair in zip(right, answered, strict=True))
    change = tuple(
        Estimate(value=(count % 5 - 2) / 50, low=(count % 5 - 4) / 50, high=(count % 5) / 50)
        for count in range(len(of))
    )
    columns = (
        Column(title="class", kind="text", values=confusion.classes),
        Column(title="images", kind="count", values=tuple(of)),
        Column(title="recall", kind="share_estimate", values=recall),
        Column(title="precision", kind="share_estimate", values=precision),
        Column(title="against before", kind="share_estimate", values=change),
        Column(title="loss", kind="number", values=tuple(None if n == 0 else 0.9 / n for n in of)),
    )
    return Table(title="Per class", columns=columns, note="Of an absent class nothing is known.")


def make_curves() -> tuple[Chart, ...]:
    """Training curves with a gap, a calibration curve with bounds, a scatter."""
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
        note="Two epochs were not validated.",
    )
    sure = tuple(np.linspace(0.05, 0.95, 10).tolist())
    seen = [min(1.0, value * 0.92 + 0.02) for value in sure]
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
                x=sure,
                y=tuple(seen),
                low=tuple(max(0.0, value - 0.09) for value in seen),
                high=tuple(min(1.0, value + 0.07) for value in seen),
            ),
            Series(name="after", x=sure, y=tuple(0.98 * value for value in sure), style="points"),
        ),
    )
    return loss, calibration


def make_report(
    classes: tuple[str, ...], images: int, pictured: int, pictures: tuple[str, ...] | None = None
) -> Report:
    """A report with each kind of block, as a training run would write."""
    confusion = make_confusion(classes, images, pictured)
    right = sum(one == other for one, other in zip(confusion.truth, confusion.answer, strict=True))
    scores = (
        Score(
            title="top-1",
            estimate=estimate(right, images),
            unit="share",
            note=f"{right} of {images}",
        ),
        Score(
            title="macro-F1",
            estimate=Estimate(value=0.842, low=0.791, high=0.885),
            unit="share",
            note="over classes",
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
            title="against before",
            estimate=Estimate(value=0.012, low=-0.02, high=0.04),
            unit="share",
            note="paired",
        ),
    )
    mistakes = [
        index for index in range(pictured) if confusion.truth[index] != confusion.answer[index]
    ][:8]
    shown = tuple(
        Shown(
            picture=index,
            overlay=(index + 1) % pictured,
            title=classes[confusion.answer[index]],
            lines=(
                f"truth {classes[confusion.truth[index]]}, sure to 93 %",
                confusion.names[index],
            ),
            wrong=order < 6,
        )
        for order, index in enumerate(mistakes)
    )
    config = "\n".join(f"setting_{index}: {index / 7:.4f}" for index in range(60))
    return Report(
        title="jersey-resnet18-seed1",
        subtitle="Training run · 24 November 2026",
        pictures=pictures or make_pictures(pictured),
        sections=(
            Section(
                key="summary",
                title="Summary",
                blocks=(
                    Text(
                        text="On 364 images of the validation set, 89 of 100 answers are right.",
                        tone="verdict",
                    ),
                    Scores(title="Validation, 364 images", scores=scores),
                    Text(
                        text="Six classes have fewer than four images: their figures say little.",
                        tone="warning",
                    ),
                    Text(
                        text="Intervals are 95 %: Wilson for shares, bootstrap by game for the rest.",
                        tone="faint",
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
            Section(key="confusion", title="Confusion", blocks=(confusion,)),
            Section(key="classes", title="Classes", blocks=(make_classes_table(confusion),)),
            Section(
                key="mistakes",
                title="Mistakes",
                blocks=(Gallery(title="Surest mistakes", shown=shown),),
            ),
            Section(
                key="reproduce",
                title="How to reproduce it",
                blocks=(
                    Code(
                        title="Command",
                        text="uv run apps/train experiment=jersey seed=1 name=jersey-resnet18-seed1",
                    ),
                    Code(title="Configuration", text=config, folded=True),
                ),
            ),
        ),
    )
