"""Renders jersey-like number crops, so that everything can be tried without a data set."""

import json
import re
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from loguru import logger
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydantic import BaseModel, ConfigDict, Field

from cls_data.errors import DataError

MANIFEST = "synthetic.json"
"""Written last, with the settings: its presence says that the set is whole, its content which set it is."""

_OWN_FILE = re.compile(r"synthetic\.json|(train|valid|test)/(annotations\.jsonl|images/\d{6}\.jpg)")
_OVERSAMPLING = 4
_RECIPE = 1  # raise it when the same settings and seed would give other images

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
        "0", "00", "1", "3", "7", "8", "10", "11", "13", "23", "24", "30",
    )  # fmt: skip
    train: Count = 100
    valid: Count = 25
    test: Count = 40
    seed: Annotated[int, Field(ge=0)] = 0

    def write(self, root: Path) -> None:
        """Render the set into `root` as annotated splits, unless this very set lies there already.

        Raises:
            DataError: the folder holds something else.
        """
        manifest = {"recipe": _RECIPE, **self.model_dump(mode="json")}
        if _manifest(root) == manifest:
            return
        if foreign := _foreign_file(root):
            raise DataError(
                f"{root}: neither empty nor a synthetic set alone (it holds {foreign}), so it is not rendered over; "
                "name another folder with data.root=PATH, or train on this one with data=jsonl"
            )
        logger.info("rendering {} synthetic crops into {}", self._total(), root)
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
            draft = Path(scratch) / root.name
            for number, (split, count) in enumerate(
                (("train", self.train), ("valid", self.valid), ("test", self.test))
            ):
                self._write_split(draft / split, number, count)
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if root.exists():
                root.rename(Path(scratch) / "old")
            draft.rename(root)

    def render(self, label: str, draw: Sequence[int]) -> Image.Image:
        """Render one crop of `label`; `draw` names it within the seed, e.g. (split, class, number)."""
        return _render(label, np.random.default_rng((self.seed, *draw)))

    def _total(self) -> int:
        return len(self.classes) * (self.train + self.valid + self.test)

    def _write_split(self, folder: Path, split: int, count: int) -> None:
        (folder / "images").mkdir(parents=True)
        rows = []
        for number in range(count):
            for index, label in enumerate(self.classes):
                name = f"images/{number * len(self.classes) + index:06d}.jpg"
                (folder / name).write_bytes(_as_jpeg(self.render(label, (split, index, number))))
                rows.append({"image": name, "suffix": label, "metadata": {"source": "synthetic"}})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "annotations.jsonl").write_text(text, encoding="utf-8")


def _manifest(root: Path) -> object:
    try:
        return json.loads((root / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def _foreign_file(root: Path) -> str | None:
    """Return the first file that rendering did not write, or None; a set's files are known by their names."""
    if not root.exists():
        return None
    manifest = _manifest(root)
    ours = isinstance(manifest, dict) and manifest.get("kind") == "synthetic-numbers"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not (ours and _OWN_FILE.fullmatch(name)):
            return name
    return None


def _as_jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _render(label: str, rng: np.random.Generator) -> Image.Image:
    """Cloth, number, perspective, then what a camera does: small, blurred, noisy."""
    height = int(rng.integers(34, 64))
    width = int(height * rng.uniform(0.7, 1.0))
    cloth, ink = _colours(rng)
    canvas = _cloth(width * _OVERSAMPLING, height * _OVERSAMPLING, cloth, rng)
    _draw_number(canvas, label, ink, rng)
    crop = _perspective(canvas, cloth, rng).resize((width, height), Image.Resampling.BOX)
    crop = crop.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.9)))
    noise = rng.normal(0.0, rng.uniform(1.0, 9.0), (height, width, 3))
    return Image.fromarray((np.asarray(crop, np.float64) + noise).clip(0, 255).astype(np.uint8))


def _colours(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two colours whose luma differs by at least 90 of 255 levels."""
    while True:
        cloth, ink = rng.integers(0, 256, (2, 3))
        if abs(np.dot(cloth - ink, (0.299, 0.587, 0.114))) >= 90:
            return _triple(cloth), _triple(ink)


def _triple(levels: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = levels.tolist()
    return red, green, blue


def _cloth(width: int, height: int, colour: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """A plain jersey with a fold's shading, at times with a stripe along one side."""
    from_left, from_right = rng.uniform(0.75, 1.15, 2).tolist()
    shade = np.linspace(from_left, from_right, width)[None, :, None]
    levels = np.broadcast_to(np.asarray(colour) * shade, (height, width, 3))
    image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        edge = width * rng.uniform(0.02, 0.08)
        left = 0.0 if rng.random() < 0.5 else width - edge
        ImageDraw.Draw(image).rectangle((left, 0, left + edge, height), fill=_triple(rng.integers(0, 256, 3)))
    return image


def _draw_number(canvas: Image.Image, label: str, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Draw the label as large as it fits, off the centre by a few percent, at times with an outline."""
    draw = ImageDraw.Draw(canvas)
    outline = int(canvas.height * rng.uniform(0.01, 0.025)) if rng.random() < 0.4 else 0
    room = (canvas.width * rng.uniform(0.68, 0.8), canvas.height * rng.uniform(0.55, 0.78))
    left, top, right, bottom = draw.textbbox((0, 0), label, font=ImageFont.load_default(100), stroke_width=outline)
    size = 100 * min(room[0] / max(right - left, 1), room[1] / max(bottom - top, 1))
    centre = (canvas.width * rng.uniform(0.46, 0.54), canvas.height * rng.uniform(0.46, 0.54))
    draw.text(
        centre,
        label,
        font=ImageFont.load_default(size),
        fill=ink,
        anchor="mm",
        stroke_width=outline,
        stroke_fill=_triple(rng.integers(0, 256, 3)),
    )


def _perspective(canvas: Image.Image, fill: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """Move the corners by up to a tenth of the sides and turn by up to 8 degrees, as a camera beside the court does."""
    width, height = canvas.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    moved = corners + rng.uniform(-0.1, 0.1, (4, 2)) * (width, height)
    coefficients = _homography(corners, moved)
    turned = canvas.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR, fillcolor=fill)
    return turned.transform(
        canvas.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill
    )


def _homography(output: np.ndarray, source: np.ndarray) -> list[float]:
    """Solve the eight coefficients by which Pillow maps each output place to its source, from four corner pairs."""
    rows, values = [], []
    for (x, y), (u, v) in zip(output, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solution: list[float] = np.linalg.solve(np.array(rows), np.array(values)).tolist()
    return solution
