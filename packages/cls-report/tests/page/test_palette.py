"""The colors of the style sheet have enough contrast, also with color blindness."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

STYLE = files("cls_report.page").joinpath("assets", "palette.css").read_text("utf-8")
COLORS = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\)", STYLE)
SCHEMES = {
    scheme: {name: colors[index] for name, *colors in COLORS}
    for index, scheme in enumerate(("light", "dark"))
}
SERIES = [f"series-{index}" for index in range(7)]
# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear light.
EYES = {
    "all cones": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
}


def light(color: str) -> np.ndarray:
    """Return the linear light [3] of a color of six hexadecimal digits."""
    levels = np.array([int(color[index : index + 2], 16) for index in (0, 2, 4)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2, 1 to 21."""
    lights = sorted(float(light(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(linear: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* [3] of linear light, for the white point D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def distance(one: str, other: str, eyes: str) -> float:
    """Return the distance of two colors (CIE 1976); about 2 is just visible side by side."""
    return float(np.linalg.norm(lab(EYES[eyes] @ light(one)) - lab(EYES[eyes] @ light(other))))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("background", ["paper", "surface"])
@pytest.mark.parametrize("text", ["ink", "muted", "link", "correct", "wrong"])
def test_text_has_contrast_on_every_background(scheme: str, background: str, text: str) -> None:
    colors = SCHEMES[scheme]
    assert contrast(colors[text], colors[background]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_warnings_have_contrast(scheme: str) -> None:
    assert contrast(SCHEMES[scheme]["ink"], SCHEMES[scheme]["warning"]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mark", [*SERIES, "focus", "warning-edge", "edge"])
def test_lines_and_outlines_have_contrast(scheme: str, mark: str) -> None:
    assert contrast(SCHEMES[scheme][mark], SCHEMES[scheme]["paper"]) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_correct_and_wrong_are_distinguishable_with_color_blindness(scheme: str, eyes: str) -> None:
    colors = SCHEMES[scheme]
    assert distance(colors["correct"], colors["wrong"], eyes) >= 40
    for correct in ("correct-few", "correct-many"):
        for wrong in ("wrong-few", "wrong-many"):
            assert distance(colors[correct], colors[wrong], eyes) >= 20


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_chart_lines_are_distinguishable_with_color_blindness(scheme: str, eyes: str) -> None:
    for one, other in combinations(SERIES, 2):
        assert distance(SCHEMES[scheme][one], SCHEMES[scheme][other], eyes) >= 14, (one, other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_large_and_small_counts_have_contrast(scheme: str) -> None:
    colors = SCHEMES[scheme]
    for kind in ("correct", "wrong"):
        assert contrast(colors[f"{kind}-few"], colors[f"{kind}-many"]) >= 3
