"""Colors, read from the style sheet itself: enough contrast in both schemes, and told apart by all kinds of eyes."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

STYLE = files("cls_report.page").joinpath("assets", "palette.css").read_text("utf-8")
FOUND = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\)", STYLE)
SCHEMES = {
    scheme: {name: colors[place] for name, *colors in FOUND}
    for place, scheme in enumerate(("light", "dark"))
}
SERIES = [f"series-{place}" for place in range(7)]
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
    """Linear light [3] of a color written as six hexadecimal digits."""
    levels = np.array([int(color[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2, 1 to 21."""
    lights = sorted(float(light(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* [3] of linear light, for white of D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def apart(one: str, other: str, eyes: str) -> float:
    """Distance of two colors (CIE 1976); about 2 is just seen side by side."""
    return float(np.linalg.norm(lab(EYES[eyes] @ light(one)) - lab(EYES[eyes] @ light(other))))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ground", ["paper", "surface"])
@pytest.mark.parametrize("text", ["ink", "muted", "link", "right", "wrong"])
def test_text_has_contrast_on_every_ground(scheme: str, ground: str, text: str) -> None:
    colors = SCHEMES[scheme]
    assert contrast(colors[text], colors[ground]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_warning_can_be_read(scheme: str) -> None:
    assert contrast(SCHEMES[scheme]["ink"], SCHEMES[scheme]["warning"]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mark", [*SERIES, "focus", "warning-edge", "edge"])
def test_lines_and_outlines_stand_out_from_the_paper(scheme: str, mark: str) -> None:
    assert contrast(SCHEMES[scheme][mark], SCHEMES[scheme]["paper"]) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_mistakes_are_told_from_right_answers_by_all_eyes(scheme: str, eyes: str) -> None:
    colors = SCHEMES[scheme]
    assert apart(colors["right"], colors["wrong"], eyes) >= 40
    for right in ("right-few", "right-many"):
        for wrong in ("wrong-few", "wrong-many"):
            assert apart(colors[right], colors[wrong], eyes) >= 20


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_the_lines_of_a_chart_are_told_apart_by_all_eyes(scheme: str, eyes: str) -> None:
    for one, other in combinations(SERIES, 2):
        assert apart(SCHEMES[scheme][one], SCHEMES[scheme][other], eyes) >= 14, (one, other)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_is_told_from_few_in_a_matrix(scheme: str) -> None:
    colors = SCHEMES[scheme]
    for kind in ("right", "wrong"):
        assert contrast(colors[f"{kind}-few"], colors[f"{kind}-many"]) >= 3
