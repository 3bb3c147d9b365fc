"""Synthetic training images for the rare classes of an existing dataset."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from loguru import logger
from PIL import Image
from pydantic import BaseModel, ConfigDict

from cls_data.annotations.reading import Record, read_split
from cls_data.data_source import uses_class_folders
from cls_data.errors import DataError
from cls_data.synthetic.rendered_folder import (
    find_obstacle,
    read_manifest,
    remove_folder,
    replace_folder,
    write_crops,
    write_manifest,
)
from cls_data.synthetic.rendering import RENDERER_VERSION, render_number
from cls_export.contract.suggestions import did_you_mean

RENDERED_FOLDER = "train/synthetic"
"""Folder of the rendered images below the data root; all rows in it count as rendered."""

_KIND = "synthetic-top-up"
_OWN_FILE = re.compile(r"synthetic\.json|annotations\.jsonl|images/\d{6,}\.jpg")
_NUMBER = re.compile(r"[0-9]{1,3}")
_STREAM = 3  # the splits of SyntheticNumbers use the random streams 0 to 2


class TopUpResult(BaseModel):
    """Result of `top_up`.

    Attributes:
        target: Training rows that every class should have.
        seed: Random seed.
        rendered: Number of crops for each class with fewer real rows, in class order.
        skipped: Classes with fewer real rows that are not numbers of one to three digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: int
    seed: int
    rendered: dict[str, int]
    skipped: tuple[str, ...]

    @property
    def total(self) -> int:
        """Number of crops of all classes."""
        counts = self.rendered.values()
        return sum(counts)


def top_up(
    root: str | os.PathLike[str],
    target: int,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> TopUpResult:
    """Render crops into ROOT/train/synthetic until each class has `target` training rows.

    Reads and writes synthetic images in that folder only. The same data and arguments give the
    same bytes and are not rendered again; other arguments replace the folder atomically, or remove
    it if no class needs a crop. A crop is a function of (seed, class, number within the class), so
    a larger target keeps the crops of a smaller one and adds to them.

    Raises:
        DataError: The training split is missing or malformed, an argument is invalid, or the folder
            contains a file that this function did not write. The folder is unchanged then.
    """
    base = Path(root)
    folder = base / RENDERED_FOLDER
    obstacle = find_obstacle(folder, _KIND, _OWN_FILE)
    if obstacle:
        raise DataError(
            f"{folder}: cannot render here, because the folder {obstacle}. Rename it and try again."
        )

    plan = _plan(base, target, classes, seed)
    manifest = {
        "kind": _KIND,
        "recipe": RENDERER_VERSION,
        "target": plan.target,
        "seed": plan.seed,
        "rendered": plan.rendered,
    }

    # Temporary folders lie in ROOT: everything in train/ is training data, even an unfinished
    # folder that a killed process left there.
    if not plan.rendered:
        remove_folder(folder, temporary_parent=base)
    elif read_manifest(folder) != manifest:
        logger.info(
            "Rendering {} images of {} classes into {}", plan.total, len(plan.rendered), folder
        )
        with replace_folder(folder, temporary_parent=base) as new_folder:
            write_crops(new_folder, _crops(plan))
            write_manifest(new_folder, manifest)
    return plan


def _plan(root: Path, target: int, classes: Sequence[str] | None, seed: int) -> TopUpResult:
    if target < 1:
        raise DataError(f"target must be at least 1, got {target}")
    if seed < 0:
        raise DataError(f"seed must be at least 0, got {seed}")

    real: Counter[str] = Counter()
    for record in _read_train(root):
        if not record.source.startswith(f"{RENDERED_FOLDER}/"):
            real[record.label] += 1
    if not real:
        raise DataError(
            f"{root}: no real training rows. Add a train/ folder with *.jsonl annotations."
        )

    if classes is None:
        classes = list(real)
    for name in classes:
        if name not in real:
            raise DataError(f"no training row has class {name!r}; {did_you_mean(name, real)}")

    rendered = {}
    skipped = []
    for label in sorted(set(classes)):
        missing = target - real[label]
        if missing <= 0:
            continue
        if _NUMBER.fullmatch(label):
            rendered[label] = missing
        else:
            skipped.append(label)
    return TopUpResult(target=target, seed=seed, rendered=rendered, skipped=tuple(skipped))


def _crops(plan: TopUpResult) -> Iterator[tuple[str, Image.Image]]:
    for label, count in plan.rendered.items():
        # The leading 1 distinguishes "0" from "00". The label itself is used instead of its index,
        # which changes when a class is added.
        key = int(f"1{label}")
        for number in range(count):
            rng = np.random.default_rng((plan.seed, _STREAM, key, number))
            crop = render_number(label, rng)
            yield label, crop


def _read_train(root: str | os.PathLike[str]) -> list[Record]:
    if uses_class_folders(Path(os.path.realpath(root)), "auto"):
        raise DataError(
            f"{root}: class folders have no annotations, which rendered images are added to; "
            f"convert them first: cls-data convert {shlex.quote(str(root))} --from image-folder"
        )
    return read_split(root, "train")
