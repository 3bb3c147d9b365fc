"""Renders crops for the rare classes of a data set that exists, beside its real training images."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from loguru import logger
from PIL import Image
from pydantic import BaseModel, ConfigDict

from cls_data.annotations.reading import read_split
from cls_data.errors import DataError
from cls_data.synthetic.rendered_folder import (
    foreign_file,
    read_manifest,
    remove,
    replacing,
    write_crops,
    write_manifest,
)
from cls_data.synthetic.rendering import RECIPE, render_number

FOLDER = "train/synthetic"
"""Where the crops lie below the data root. Rows below it are rendered ones, whatever they say of themselves."""

_KIND = "synthetic-top-up"
_OWN_FILE = re.compile(r"synthetic\.json|annotations\.jsonl|images/\d{6,}\.jpg")
_NUMBER = re.compile(r"[0-9]{1,3}")
_STREAM = 3  # the splits of SyntheticNumbers draw from the streams 0 to 2


class TopUp(BaseModel):
    """What `top_up` makes of a data set.

    Attributes:
        target: training rows that every class should have.
        seed: of every draw.
        rendered: number of crops for each class that has fewer real rows, in class order.
        skipped: classes that have fewer and cannot be rendered: empty, longer than three characters, or no digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: int
    seed: int
    rendered: dict[str, int]
    skipped: tuple[str, ...]

    @property
    def total(self) -> int:
        """Crops of all classes together."""
        return sum(self.rendered.values())


def top_up(
    root: str | os.PathLike[str],
    target: int,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> TopUp:
    """Render crops into ROOT/train/synthetic until each class has `target` training rows, its real ones included.

    Nothing outside that folder is read as synthetic or written. The same data and arguments give the same bytes,
    and are not rendered twice; others replace the folder as a whole, or remove it where no class needs a crop.
    A crop is a function of (seed, class, number within the class): a larger target adds to those of a smaller one.

    Args:
        root: folder of an annotated data set.
        target: training rows per class; classes that have as many get none.
        classes: top up these alone; all when None.
        seed: of every draw.

    Raises:
        DataError: there is no training split, or its rows are malformed; a class is unknown; target or seed is out
            of range; or the folder holds something that this function did not write, and is left as it is.
    """
    base = Path(root)
    folder = base / FOLDER
    if foreign := foreign_file(folder, _KIND, _OWN_FILE):
        raise DataError(
            f"{folder}: not a top-up's folder alone (it holds {foreign}), so it is not rendered over; "
            "rename it, and call this again"
        )
    plan = _plan(base, target, classes, seed)
    manifest = {
        "kind": _KIND,
        "recipe": RECIPE,
        **plan.model_dump(include={"target", "seed", "rendered"}),
    }
    if not plan.rendered:
        remove(folder, drafts=base)
    elif read_manifest(folder) != manifest:
        logger.info(
            "rendering {} crops of {} classes into {}", plan.total, len(plan.rendered), folder
        )
        # Not beside the folder: whatever lies in train/ is training data, even a draft that a kill left there.
        with replacing(folder, drafts=base) as draft:
            write_crops(draft, _crops(plan))
            write_manifest(draft, manifest)
    return plan


def _plan(root: Path, target: int, classes: Sequence[str] | None, seed: int) -> TopUp:
    if target < 1 or seed < 0:
        raise DataError(
            f"target={target}, seed={seed}: the target is a number from 1, the seed one from 0"
        )
    real = Counter(
        record.label
        for record in read_split(root, "train")
        if not record.source.startswith(f"{FOLDER}/")
    )
    if not real:
        raise DataError(
            f"{root}: no real training rows; a top-up needs a train/ folder with *.jsonl files of its own"
        )
    if classes is not None:
        _refuse_unknown(classes, real)
    chosen = sorted(real if classes is None else set(classes))
    rare = {label: target - real[label] for label in chosen if real[label] < target}
    rendered = {label: missing for label, missing in rare.items() if _NUMBER.fullmatch(label)}
    return TopUp(
        target=target,
        seed=seed,
        rendered=rendered,
        skipped=tuple(label for label in rare if label not in rendered),
    )


def _refuse_unknown(classes: Sequence[str], known: Counter[str]) -> None:
    for name in classes:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise DataError(f"no training row has the class {name!r}; the nearest is {nearest!r}")


def _crops(plan: TopUp) -> Iterator[tuple[str, Image.Image]]:
    for label, count in plan.rendered.items():
        for number in range(count):
            # The leading 1 tells "0" from "00". The label and not its index, which moves when a class is added.
            yield (
                label,
                render_number(
                    label, np.random.default_rng((plan.seed, _STREAM, int(f"1{label}"), number))
                ),
            )
