"""Renderer of one synthetic crop of a jersey number."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

RENDERER_VERSION = 1
"""Increase it when the same label and random state give a different crop."""

Color = tuple[int, int, int]

_OVERSAMPLING = 4
_MIN_LUMA_DIFFERENCE = 90  # of 255 levels, between fabric and number


def render_number(label: str, rng: np.random.Generator) -> Image.Image:
    """Render a number on fabric, then perspective, blur, and noise: RGB, 34-63 px high."""
    height = int(rng.integers(34, 64))
    width = int(height * rng.uniform(0.7, 1.0))
    fabric, ink = _draw_colors(rng)

    canvas = _draw_fabric(width * _OVERSAMPLING, height * _OVERSAMPLING, fabric, rng)
    _draw_number(canvas, label, ink, rng)
    canvas = _distort(canvas, fabric, rng)
    crop = canvas.resize((width, height), Image.Resampling.BOX)

    blur = ImageFilter.GaussianBlur(rng.uniform(0.0, 0.9))
    crop = crop.filter(blur)

    deviation = rng.uniform(1.0, 9.0)
    noise = rng.normal(0.0, deviation, (height, width, 3))
    levels = np.asarray(crop, np.float64)
    return _to_image(levels + noise)


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode an image as JPEG with quality 85."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _draw_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """Draw two colors whose luma (ITU-R BT.601) differs clearly."""
    while True:
        fabric, ink = rng.integers(0, 256, (2, 3))
        luma_difference = np.dot(fabric - ink, (0.299, 0.587, 0.114))
        if abs(luma_difference) >= _MIN_LUMA_DIFFERENCE:
            return _to_color(fabric), _to_color(ink)


def _to_image(levels: NDArray[np.float64]) -> Image.Image:
    clipped = levels.clip(0, 255)
    return Image.fromarray(clipped.astype(np.uint8))


def _to_color(levels: NDArray[np.int64]) -> Color:
    red, green, blue = levels.tolist()
    return red, green, blue


def _draw_fabric(width: int, height: int, color: Color, rng: np.random.Generator) -> Image.Image:
    """Draw plain fabric with horizontal shading, sometimes with a stripe along one side."""
    left_shade, right_shade = rng.uniform(0.75, 1.15, 2).tolist()
    shades = np.linspace(left_shade, right_shade, width)
    row = np.asarray(color) * shades[:, None]
    image = _to_image(np.broadcast_to(row, (height, width, 3)))

    if rng.random() < 0.3:
        stripe = width * rng.uniform(0.02, 0.08)
        is_left = rng.random() < 0.5
        left = 0.0 if is_left else width - stripe
        ImageDraw.Draw(image).rectangle(
            (left, 0, left + stripe, height), fill=_to_color(rng.integers(0, 256, 3))
        )
    return image


def _draw_number(canvas: Image.Image, label: str, ink: Color, rng: np.random.Generator) -> None:
    """Draw the label as large as it fits, a few percent off center, sometimes with an outline."""
    width, height = canvas.size
    draw = ImageDraw.Draw(canvas)

    outline = 0
    if rng.random() < 0.4:
        outline = int(height * rng.uniform(0.01, 0.025))

    max_width = width * rng.uniform(0.68, 0.8)
    max_height = height * rng.uniform(0.55, 0.78)

    left, top, right, bottom = draw.textbbox(
        (0, 0), label, font=ImageFont.load_default(100), stroke_width=outline
    )
    horizontal_scale = max_width / max(right - left, 1)
    vertical_scale = max_height / max(bottom - top, 1)
    size = 100 * min(horizontal_scale, vertical_scale)

    center_x = width * rng.uniform(0.46, 0.54)
    center_y = height * rng.uniform(0.46, 0.54)
    draw.text(
        (center_x, center_y),
        label,
        font=ImageFont.load_default(size),
        fill=ink,
        anchor="mm",
        stroke_width=outline,
        stroke_fill=_to_color(rng.integers(0, 256, 3)),
    )


def _distort(canvas: Image.Image, fill: Color, rng: np.random.Generator) -> Image.Image:
    """Rotate by up to 8 degrees, then move the corners by up to a tenth of the sides."""
    width, height = canvas.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    shifts = rng.uniform(-0.1, 0.1, (4, 2)) * (width, height)

    coefficients = _solve_homography(corners, corners + shifts)
    rotated = canvas.rotate(
        rng.uniform(-8, 8),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )

    return rotated.transform(
        canvas.size,
        Image.Transform.PERSPECTIVE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )


def _solve_homography(output: NDArray[np.float64], source: NDArray[np.float64]) -> list[float]:
    """Return the eight coefficients with which Pillow maps four output corners to source points."""
    rows = []
    values = []
    for (x, y), (u, v) in zip(output, source, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        values.append(u)

        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        values.append(v)

    solution: list[float] = np.linalg.solve(rows, values).tolist()
    return solution
