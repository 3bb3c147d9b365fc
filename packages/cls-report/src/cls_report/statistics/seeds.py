"""How far runs of one recipe lie apart when nothing but the seed differs: the noise floor of a comparison."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy import stats

from cls_report.errors import ReportError
from cls_report.page.blocks import Estimate
from cls_report.run_folder import Run
from cls_report.statistics.confusion_counts import macro_f1
from cls_report.statistics.evaluated import Answers
from cls_report.statistics.intervals import LEVEL, Floats

_FREE = ("seed", "run")
"""What runs of one recipe may differ in."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure across seeds.

    Attributes:
        values: of each run, at least two.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> Estimate:
        """The mean over seeds with Student's interval: of the recipe on these very images."""
        middle, runs = mean(self.values), len(self.values)
        half = float(stats.t.ppf((1 + LEVEL) / 2, runs - 1)) * self.deviation / math.sqrt(runs)
        return Estimate(value=middle, low=middle - half, high=middle + half)

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds."""
        return stdev(self.values)

    @property
    def noise_floor(self) -> float:
        """By how much two runs of one recipe differ in one of twenty cases, from chance in training alone."""
        return (
            float(stats.t.ppf((1 + LEVEL) / 2, len(self.values) - 1))
            * math.sqrt(2)
            * self.deviation
        )


@dataclass(frozen=True, slots=True)
class Seeds:
    """Runs of one recipe.

    Attributes:
        names: of the runs.
        seeds: of each.
        split: that they were evaluated on, of so many images.
        top1: share of right answers, 0 to 1.
        macro_f1: 0 to 1.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str
    images: int
    top1: Spread
    macro_f1: Spread

    def sentences(self) -> list[str]:
        """Say what the runs say together."""
        lines = []
        for title, spread in (("top-1", self.top1), ("macro-F1", self.macro_f1)):
            middle = spread.mean
            assert middle.value is not None
            assert middle.low is not None
            assert middle.high is not None
            lines.append(
                f"{title}: mean {middle.value:.2%} (95 % interval of the mean {max(0, middle.low):.2%} to "
                f"{min(1, middle.high):.2%}), standard deviation {100 * spread.deviation:.2f} points. Two single runs "
                f"that differ by less than {100 * spread.noise_floor:.1f} points may differ by their seeds alone."
            )
        return lines


def across_seeds(runs: Sequence[Run], split: str | None = None) -> Seeds:
    """Put the runs of one recipe together.

    Raises:
        ReportError: fewer than two runs; they differ in more than the seed; a seed twice; other images.
    """
    if len(runs) < 2:
        raise ReportError(
            f"expected at least two runs of one recipe, got {len(runs)}: uv run apps/train -m seed=1,2,3"
        )
    for run in runs[1:]:
        if differing := differing_settings(runs[0].config, run.config):
            raise ReportError(
                f"{runs[0].path} and {run.path} differ in more than their seeds: {', '.join(list(differing)[:10])}; "
                "to compare recipes, give apps/compare two runs without --seeds"
            )
    seeds = tuple(int(run.config["seed"]) for run in runs)
    if len(set(seeds)) < len(seeds):
        raise ReportError(f"expected each seed once, got {', '.join(map(str, seeds))}")
    found = split or ("test" if all("test" in run.predictions for run in runs) else "valid")
    if lacking := [str(run.path) for run in runs if found not in run.predictions]:
        raise ReportError(f"not evaluated on {found}: {', '.join(lacking)}")
    images = {tuple(sorted(map(str, run.predictions[found].ids))) for run in runs}
    if len(images) > 1:
        raise ReportError(
            "the runs were evaluated on different images; apps/compare RUN RUN names them"
        )
    answers = [Answers.of(run.predictions[found]) for run in runs]
    return Seeds(
        names=tuple(run.name for run in runs),
        seeds=seeds,
        split=found,
        images=len(answers[0].truth),
        top1=Spread(tuple(float(each.right.mean()) for each in answers)),
        macro_f1=Spread(tuple(float(macro_f1(each, _once(each))[0]) for each in answers)),
    )


def runs_of_one_recipe(root: Path) -> list[Path]:
    """Return the folders of the newest evaluated run's recipe, by seed; of a seed that was run twice, the newer.

    Raises:
        ReportError: there is no evaluated run.
    """
    folders = [folder for folder in root.glob("*") if (folder / "evaluation.json").is_file()]
    if not folders:
        raise ReportError(
            f"{root}: no evaluated run lies here; expected what uv run apps/train -m seed=1,2,3 leaves"
        )
    folders.sort(key=lambda folder: (folder / "evaluation.json").stat().st_mtime, reverse=True)
    recipe = Run.at(folders[0]).config
    by_seed: dict[int, Path] = {}
    for folder in folders:
        config = Run.at(folder).config
        if not differing_settings(recipe, config):
            by_seed.setdefault(int(config["seed"]), folder)
    return [by_seed[seed] for seed in sorted(by_seed)]


def _once(answers: Answers) -> Floats:
    return np.ones((1, len(answers.truth)))


def differing_settings(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the settings of two configurations that differ, but for seeds and names: by key, both as JSON."""
    first, second = _flat(one), _flat(other)
    keys = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
    return {key: (first.get(key, "-"), second.get(key, "-")) for key in keys}


def _flat(config: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*path, str(key)))
        else:
            found[".".join(path)] = json.dumps(value, sort_keys=True, default=str)

    walk({key: value for key, value in config.items() if key not in _FREE}, ())
    return {key: value for key, value in found.items() if not key.endswith(".seed")}
