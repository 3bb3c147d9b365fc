"""Synthetic datasets of jersey numbers, to try everything without a dataset."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from loguru import logger
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cls_data.errors import DataError
from cls_data.synthetic.rendered_folder import (
    find_obstacle,
    read_manifest,
    replace_folder,
    write_crops,
    write_manifest,
)
from cls_data.synthetic.rendering import RENDERER_VERSION, render_number

_OWN_FILE = re.compile(
    r"synthetic\.json|(train|valid|test)/(annotations\.jsonl|images/\d{6,}\.jpg)"
)
_DEFAULT_CLASSES = ("0", "00", "1", "3", "7", "8", "10", "11", "13", "23", "24", "30")

Count = Annotated[int, Field(ge=1)]


class SyntheticNumbers(BaseModel):
    """Rendered dataset; equal settings give equal images on every machine with the same Pillow.

    Attributes:
        classes: Numbers to render.
        train: Training images per class.
        valid: Validation images per class.
        test: Test images per class.
        seed: Random seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["synthetic-numbers"] = "synthetic-numbers"
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = _DEFAULT_CLASSES
    train: Count = 100
    valid: Count = 25
    test: Count = 40
    seed: Annotated[int, Field(ge=0)] = 0

    def write(self, root: Path) -> None:
        """Render the dataset into `root` as annotated splits, unless it is already there."""
        manifest = {"recipe": RENDERER_VERSION, **self.model_dump(mode="json")}
        if read_manifest(root) == manifest:
            return

        obstacle = find_obstacle(root, self.kind, _OWN_FILE)
        if obstacle:
            raise DataError(
                f"{root}: cannot render a synthetic dataset here, because the folder {obstacle}. "
                "Set data.root to an empty folder, or train on this one with data=jsonl or "
                "data=folder."
            )

        counts = {"train": self.train, "valid": self.valid, "test": self.test}
        total = len(self.classes) * sum(counts.values())
        logger.info("Rendering {} synthetic images into {}", total, root)

        root.parent.mkdir(parents=True, exist_ok=True)
        with replace_folder(root, temporary_parent=root.parent) as folder:
            for stream, (split, count) in enumerate(counts.items()):
                write_crops(folder / split, self._crops(stream, count))
            write_manifest(folder, manifest)

    def render(self, label: str, key: Sequence[int]) -> Image.Image:
        """Render one image of `label`; the random draws depend on the seed and `key`."""
        rng = np.random.default_rng((self.seed, *key))
        return render_number(label, rng)

    def _crops(self, stream: int, count: int) -> Iterator[tuple[str, Image.Image]]:
        for number in range(count):
            for index, label in enumerate(self.classes):
                crop = self.render(label, (stream, index, number))
                yield label, crop
