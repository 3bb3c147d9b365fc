"""ParamSampler one crop of a number on a jersey."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

RECIPE = 1
"""Raise it when the same label and random state would give another crop."""

_OVERSAMPLING = 4


def render_number(label: str, rng: np.random.Generator) -> Image.Image:
    """Render cloth, number, perspective, then what a camera does: an RGB crop 34-63 px high, small, blurred, noisy."""
    height = int(rng.integers(34, 64))
    width = int(height * rng.uniform(0.7, 1.0))
    cloth, ink = _colors(rng)
    canvas = _cloth(width * _OVERSAMPLING, height * _OVERSAMPLING, cloth, rng)
    _draw_number(canvas, label, ink, rng)
    crop = _perspective(canvas, cloth, rng).resize((width, height), Image.Resampling.BOX)
    crop = crop.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.9)))
    noise = rng.normal(0.0, rng.uniform(1.0, 9.0), (height, width, 3))
    return Image.fromarray((np.asarray(crop, np.float64) + noise).clip(0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image) -> bytes:
    """Return the bytes of a JPEG file."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _colors(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two colors whose luma differs by at least 90 of 255 levels."""
    while True:
        cloth, ink = rng.integers(0, 256, (2, 3))
        if abs(np.dot(cloth - ink, (0.299, 0.587, 0.114))) >= 90:
            return _triple(cloth), _triple(ink)


def _triple(levels: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = levels.tolist()
    return red, green, blue


def _cloth(
    width: int, height: int, color: tuple[int, int, int], rng: np.random.Generator
) -> Image.Image:
    """A plain jersey with a fold's shading, at times with a stripe along one side."""
    from_left, from_right = rng.uniform(0.75, 1.15, 2).tolist()
    shade = np.linspace(from_left, from_right, width)[None, :, None]
    levels = np.broadcast_to(np.asarray(color) * shade, (height, width, 3))
    image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        edge = width * rng.uniform(0.02, 0.08)
        left = 0.0 if rng.random() < 0.5 else width - edge
        ImageDraw.Draw(image).rectangle(
            (left, 0, left + edge, height), fill=_triple(rng.integers(0, 256, 3))
        )
    return image


def _draw_number(
    canvas: Image.Image, label: str, ink: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Draw the label as large as it fits, off the center by a few percent, at times with an outline."""
    draw = ImageDraw.Draw(canvas)
    outline = int(canvas.height * rng.uniform(0.01, 0.025)) if rng.random() < 0.4 else 0
    room = (canvas.width * rng.uniform(0.68, 0.8), canvas.height * rng.uniform(0.55, 0.78))
    left, top, right, bottom = draw.textbbox(
        (0, 0), label, font=ImageFont.load_default(100), stroke_width=outline
    )
    size = 100 * min(room[0] / max(right - left, 1), room[1] / max(bottom - top, 1))
    center = (canvas.width * rng.uniform(0.46, 0.54), canvas.height * rng.uniform(0.46, 0.54))
    draw.text(
        center,
        label,
        font=ImageFont.load_default(size),
        fill=ink,
        anchor="mm",
        stroke_width=outline,
        stroke_fill=_triple(rng.integers(0, 256, 3)),
    )


def _perspective(
    canvas: Image.Image, fill: tuple[int, int, int], rng: np.random.Generator
) -> Image.Image:
    """Move the corners by up to a tenth of the sides and turn by up to 8 degrees, as a camera beside the court does."""
    width, height = canvas.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    moved = corners + rng.uniform(-0.1, 0.1, (4, 2)) * (width, height)
    coefficients = _homography(corners, moved)
    turned = canvas.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR, fillcolor=fill)
    return turned.transform(
        canvas.size,
        Image.Transform.PERSPECTIVE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )


def _homography(output: np.ndarray, source: np.ndarray) -> list[float]:
    """Solve the eight coefficients by which Pillow maps each output place to its source, from four corner pairs."""
    rows, values = [], []
    for (x, y), (u, v) in zip(output, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solution: list[float] = np.linalg.solve(np.array(rows), np.array(values)).tolist()
    return solution
