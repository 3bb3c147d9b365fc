"""The variation across runs of one recipe that differ only in their seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cls_export.contract.run_layout import RunPaths
from cls_report.errors import ReportError
from cls_report.run_folder import Run, common_split, differing_settings
from cls_report.statistics.evaluated_predictions import EvaluatedPredictions
from cls_report.statistics.scores import macro_f1
from cls_report.statistics.seed_variation import SeedVariation

_MAX_KEYS = 10


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Metrics of runs that differ only in their seed, on the images of one split."""

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str
    images: int
    top1: SeedVariation
    macro_f1: SeedVariation

    def describe(self) -> list[str]:
        """Return one line per metric: mean, deviation, and noise floor."""
        return [_describe("top-1", self.top1), _describe("macro-F1", self.macro_f1)]


def _describe(metric: str, variation: SeedVariation) -> str:
    mean = variation.mean
    assert mean.low is not None
    assert mean.high is not None

    low = max(0, mean.low)
    high = min(1, mean.high)
    deviation = 100 * variation.deviation
    floor = 100 * variation.noise_floor
    return (
        f"{metric}: mean {mean.value:.2%} (95% interval of the mean {low:.2%} to {high:.2%}), "
        f"standard deviation {deviation:.2f} points. A difference of less than {floor:.1f} points "
        "between two runs can be due to their seeds alone."
    )


def summarize_seeds(runs: Sequence[Run], split: str | None = None) -> SeedSummary:
    """Summarize two or more runs of one recipe with different seeds.

    The default split is test if every run has it, otherwise valid.

    Raises:
        ReportError: Too few runs, a repeated seed, or runs that differ in settings or images.
    """
    _check_recipes(runs)
    seeds = tuple(_get_seed(run) for run in runs)
    if len(set(seeds)) < len(seeds):
        listed = ", ".join(map(str, seeds))
        raise ReportError(f"expected different seeds, got {listed}")

    split = split or common_split(runs)
    first_predictions = runs[0].predictions_for(split)
    images = sorted(first_predictions.ids.tolist())
    accuracies = []
    f1_scores = []

    for run in runs:
        predictions = run.predictions_for(split)
        if sorted(predictions.ids.tolist()) != images:
            raise ReportError(
                f"{runs[0].path} and {run.path} were evaluated on different images; "
                "`uv run apps/compare RUN RUN` names them"
            )
        evaluated = EvaluatedPredictions.from_predictions(predictions)
        accuracy = float(evaluated.correct.mean())
        accuracies.append(accuracy)
        single_sample = np.ones((1, len(evaluated)))
        f1_scores += macro_f1(evaluated, single_sample).tolist()

    return SeedSummary(
        names=tuple(run.name for run in runs),
        seeds=seeds,
        split=split,
        images=len(images),
        top1=SeedVariation(tuple(accuracies)),
        macro_f1=SeedVariation(tuple(f1_scores)),
    )


def _get_seed(run: Run) -> int:
    seed = run.settings.seed
    if seed is None:
        raise ReportError(f"{run.paths.config}: seed is not set")
    return seed


def _check_recipes(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise ReportError(
            f"expected at least two runs of one recipe, got {len(runs)}; to train more: "
            "uv run apps/train -m seed=1,2,3"
        )

    for run in runs[1:]:
        keys = list(differing_settings(runs[0], run))
        if keys:
            names = ", ".join(keys[:_MAX_KEYS])
            raise ReportError(
                f"{runs[0].path} and {run.path} differ in more than their seeds: {names}; to "
                "compare two recipes, run `uv run apps/compare RUN RUN`"
            )


def find_runs_of_newest_recipe(root: Path) -> list[Path]:
    """Return the folders of all runs with the recipe of the newest evaluated run, by seed.

    Of several runs with one seed, the newest counts. Other recipes may be damaged.

    Raises:
        ReportError: The folder holds no evaluated run, or the newest one is damaged.
    """
    evaluated = []
    for folder in root.glob("*"):
        file = RunPaths(folder).evaluation
        if file.is_file():
            evaluated.append((file.stat().st_mtime, folder))

    if not evaluated:
        raise ReportError(
            f"{root}: no evaluated run; to train some: uv run apps/train -m seed=1,2,3"
        )

    evaluated.sort(reverse=True)
    newest = Run.open(evaluated[0][1])
    by_seed: dict[int, Path] = {}
    for _, folder in evaluated:
        run = Run(folder)
        if _has_same_recipe(newest, run):
            by_seed.setdefault(_get_seed(run), folder)

    return [by_seed[seed] for seed in sorted(by_seed)]


def _has_same_recipe(newest: Run, run: Run) -> bool:
    try:
        return not differing_settings(newest, run)
    except ReportError:  # a damaged config.yaml
        return False
