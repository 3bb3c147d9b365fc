"""A data set of rendered jersey-like number crops, so that everything can be tried without a data set."""

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
    foreign_file,
    read_manifest,
    replacing,
    write_crops,
    write_manifest,
)
from cls_data.synthetic.rendering import RECIPE, render_number

_OWN_FILE = re.compile(
    r"synthetic\.json|(train|valid|test)/(annotations\.jsonl|images/\d{6,}\.jpg)"
)

Count = Annotated[int, Field(ge=1)]


class SyntheticNumbers(BaseModel):
    """A rendered data set, the same for the same settings on every machine with the same Pillow.

    Attributes:
        classes: the numbers, as the jersey shows them.
        train: images per class.
        valid: images per class.
        test: images per class.
        seed: of every draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["synthetic-numbers"] = "synthetic-numbers"
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = (
        "0",
        "00",
        "1",
        "3",
        "7",
        "8",
        "10",
        "11",
        "13",
        "23",
        "24",
        "30",
    )
    train: Count = 100
    valid: Count = 25
    test: Count = 40
    seed: Annotated[int, Field(ge=0)] = 0

    def write(self, root: Path) -> None:
        """Render the set into `root` as annotated splits, unless this very set lies there already.

        Raises:
            DataError: the folder holds something else.
        """
        manifest = {"recipe": RECIPE, **self.model_dump(mode="json")}
        if read_manifest(root) == manifest:
            return
        if foreign := foreign_file(root, self.kind, _OWN_FILE):
            raise DataError(
                f"{root}: neither empty nor a synthetic set alone (it holds {foreign}), so it is not rendered over; "
                "name another folder with data.root=PATH, or train on this one with data=jsonl"
            )
        counts = {"train": self.train, "valid": self.valid, "test": self.test}
        logger.info(
            "rendering {} synthetic crops into {}", len(self.classes) * sum(counts.values()), root
        )
        root.parent.mkdir(parents=True, exist_ok=True)
        with replacing(root, drafts=root.parent) as draft:
            for number, (split, count) in enumerate(counts.items()):
                write_crops(draft / split, self._crops(number, count))
            write_manifest(draft, manifest)

    def render(self, label: str, draw: Sequence[int]) -> Image.Image:
        """Render one crop of `label`; `draw` names it within the seed, e.g. (split, class, number)."""
        return render_number(label, np.random.default_rng((self.seed, *draw)))

    def _crops(self, split: int, count: int) -> Iterator[tuple[str, Image.Image]]:
        for number in range(count):
            for index, label in enumerate(self.classes):
                yield label, self.render(label, (split, index, number))
