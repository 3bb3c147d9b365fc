"""Evaluate the best weights of a run in a clean process, export them, and verify the bundle.

`uv run apps/train` starts this after training. To repeat it for any run:
`uv run python -m cls_train.stages.evaluate RUN_FOLDER`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from loguru import logger
from torch import Tensor, nn
from torch.nn import functional

from cls_callbacks import CheckpointScore, PredictionsWriter
from cls_data import ClassificationDataModule, EvaluationOutputs, Predictions, keep_freed_memory
from cls_export import Classifier, LabelsMapping, Provenance, ScoredMetric, verify_bundle
from cls_export.bundle.model_card import CardFigure
from cls_export.contract.run_layout import RunPaths
from cls_export.convert.exporter import write_bundle
from cls_models import ClassificationModule, build_classification_metrics
from cls_report import Estimate, EvaluatedPredictions, EvaluationScores, compute_scores
from cls_train.boundary import explained_errors, run_app_command
from cls_train.builders import (
    build_callbacks,
    build_data,
    build_evaluation_trainer,
    build_module,
    build_preprocessing,
    check_nodes,
    count_validation_rows,
    optimize_for_device,
)
from cls_train.composition.config import RunConfig
from cls_train.errors import IdentityError, RunError
from cls_train.logs import configure_logging, log_to_file
from cls_train.run_folder.checkpoints import load_checkpoint
from cls_train.run_folder.run_lock import acquire_lock, release_lock
from cls_train.run_folder.run_paths import read_config, write_json
from cls_train.run_folder.state import remove_stale_drafts
from cls_train.run_folder.write_errors import failed_writes
from cls_train.stages.calibrate import CalibrationEffect, calibrate
from cls_train.stages.robustness import compute_robustness_curves

GOLDEN_IMAGES = 8


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Results for the best weights, as evaluation.json holds them.

    Attributes:
        scored: The metric that the checkpoint records for its weights.
        metrics: By split, the metrics as the module logs them.
        scores: By split, metrics with 95% confidence intervals.
        calibration: Expected calibration error before and after; None if nothing was exported or
            calibrated.
        confidence_notes: Why a calibration or rejection threshold that was asked for is missing.
        onnx: The monitored metric of the ONNX file, and the largest difference of a logit from
            PyTorch; None if nothing was exported.
    """

    scored: CheckpointScore
    metrics: dict[str, dict[str, float]]
    scores: dict[str, EvaluationScores]
    calibration: CalibrationEffect | None = None
    confidence_notes: tuple[str, ...] = ()
    onnx: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class _TrainedRun:
    """A run that is ready to be evaluated."""

    paths: RunPaths
    config: RunConfig
    labels: LabelsMapping
    scored: CheckpointScore
    data: ClassificationDataModule
    module: ClassificationModule
    trainer: Trainer


def evaluate(paths: RunPaths, allow_targets: Sequence[str] = ()) -> EvaluationResult:
    """Evaluate best.ckpt on valid and test, export it, and compare with the logged metric.

    Args:
        paths: The run.
        allow_targets: Packages of the user whose classes its configuration may name. Those in
            config.yaml are not used: a run folder from elsewhere cannot allow itself anything.

    Raises:
        DataError: The data cannot be read.
        IdentityError: The metric of PyTorch or the ONNX model on valid differs from the logged one.
        RunError: The folder holds no run or no best.ckpt, or the data has changed.
        RunFailedError: No threshold reaches the rejection target, which is required.
    """
    keep_freed_memory()
    run = _load_run(paths, allow_targets)
    evaluation, valid_outputs = _evaluate_weights(run)
    if not run.config.stages.export:
        return evaluation

    groups = [record.group for record in run.data.records("valid")]
    labels = _add_provenance(run.labels, run.scored)
    labels, calibration = calibrate(labels, valid_outputs, groups, run.config.stages)
    run.module.cpu().to(memory_format=torch.contiguous_format)
    onnx = _export(run, labels, valid_outputs, list_card_figures(evaluation.scores))

    if run.config.stages.robustness:
        _measure_robustness(run)
    return replace(
        evaluation,
        calibration=calibration,
        confidence_notes=labels.confidence_notes,
        onnx=onnx,
    )


def compute_metrics(logits: Tensor, labels: Tensor, split: str) -> dict[str, float]:
    """Compute the scalar metrics of logits [N, C], named as the module logs them."""
    metrics = {f"{split}_loss": float(functional.cross_entropy(logits, labels))}
    values = build_classification_metrics(logits.shape[1])(logits, labels)

    for name, value in values.items():
        if value.ndim == 0:
            metrics[f"{split}_{name}"] = float(value)
    return metrics


def _load_run(paths: RunPaths, allow_targets: Sequence[str]) -> _TrainedRun:
    _turn_off_tf32()
    config = read_config(paths)
    config = config.model_copy(update={"allow_targets": tuple(allow_targets)})
    check_nodes(config)

    seed_everything(config.seed, workers=True, verbose=False)
    checkpoint = load_checkpoint(paths.best)
    data = build_data(config, build_preprocessing(config), skip_gate=True)
    data.setup()

    labels = LabelsMapping.load(paths.labels)
    if data.fingerprint != labels.provenance.data_fingerprint:
        raise RunError(
            f"{data.config.root}: rows or images have changed since the run was trained on them"
        )

    module = build_module(config, data, skip_initial_weights=True, skip_distillation=True)
    module.load_state_dict(checkpoint["state_dict"])

    callbacks = build_callbacks(config).all
    trainer = build_evaluation_trainer(config, paths.path, callbacks)
    optimize_for_device(module, trainer)
    return _TrainedRun(paths, config, labels, checkpoint["scored"], data, module, trainer)


def _turn_off_tf32() -> None:
    """Compute in float32, as the runtime does, on a GPU too."""
    # TF32, the default of convolutions on a GPU, moves logits by 1e-3. It is set the old way,
    # because the ONNX exporter of torch 2.15 fails after conv.fp32_precision was used.
    torch.backends.cudnn.allow_tf32 = False


def _evaluate_weights(run: _TrainedRun) -> tuple[EvaluationResult, EvaluationOutputs]:
    """Evaluate the module on valid and test; return the results and the outputs on valid."""
    valid_metrics = run.trainer.validate(run.module, datamodule=run.data, verbose=False)[0]
    valid_outputs = run.module.outputs
    assert valid_outputs is not None

    metrics = {"valid": dict(valid_metrics)}
    value = _compute_scored_metric(run, valid_outputs.logits, valid_outputs)
    _check_identity(run, "best.ckpt in a clean process", value)
    scores = {"valid": _score(run, valid_outputs)}

    if "test" in run.data.splits:
        test_metrics = run.trainer.test(run.module, datamodule=run.data, verbose=False)[0]
        assert run.module.outputs is not None
        metrics["test"] = dict(test_metrics)
        scores["test"] = _score(run, run.module.outputs)
    else:
        logger.warning(
            "{} has no test split; the results below are for valid, which selected the weights",
            run.data.config.root,
        )
    return EvaluationResult(run.scored, metrics, scores), valid_outputs


def _compute_scored_metric(
    run: _TrainedRun, logits: Tensor, valid_outputs: EvaluationOutputs
) -> float:
    """Compute the monitored metric on the rows that training validates on.

    These are all rows of valid, unless `trainer.limit_val_batches` is set.
    """
    rows = count_validation_rows(run.config.trainer, run.data)
    is_used = valid_outputs.index < rows
    metrics = compute_metrics(logits[is_used], valid_outputs.labels[is_used], "valid")
    return metrics[run.scored["metric"]]


def _score(run: _TrainedRun, outputs: EvaluationOutputs) -> EvaluationScores:
    """Compute the scores of a split, and write its predictions if no callback has done it."""
    split = outputs.split
    records = run.data.records(split)
    sizes = run.data.sizes(split)
    predictions = Predictions.from_outputs(outputs, records, run.data.classes, sizes)
    has_writer = any(isinstance(each, PredictionsWriter) for each in run.trainer.callbacks)  # type: ignore[attr-defined]
    if not has_writer:  # reports and comparisons need the file
        predictions.save(run.paths.predictions / f"{split}.npz")
    return compute_scores(EvaluatedPredictions.from_predictions(predictions))


def list_card_figures(scores: Mapping[str, EvaluationScores]) -> list[CardFigure]:
    """Return the figures of the model card, given the scores by split: test first."""
    figures = []
    for split in sorted(scores):
        found = scores[split]
        estimates = {
            "top-1 accuracy": found.top1,
            "macro precision": found.macro_precision,
            "macro recall": found.macro_recall,
            "macro F1": found.macro_f1,
        }
        for metric, estimate in estimates.items():
            if estimate.value is not None:
                interval = (estimate.low, estimate.high)
                figures.append(CardFigure(split, metric, estimate.value, *interval, found.images))
    return figures


def _export(
    run: _TrainedRun,
    labels: LabelsMapping,
    valid_outputs: EvaluationOutputs,
    figures: Sequence[CardFigure],
) -> dict[str, float]:
    """Write the bundle, and check it by classifying the validation files with cls_export."""
    bundle = run.paths.bundle
    images = [record.path for record in run.data.records("valid")]
    step = max(1, len(images) // GOLDEN_IMAGES)

    golden = images[::step][:GOLDEN_IMAGES]
    write_bundle(run.module.backbone, labels, bundle, golden, figures)
    report = verify_bundle(bundle)
    if not report.passed:
        raise IdentityError(f"{bundle} fails its golden test: {'; '.join(report.failures)}")

    logits = torch.from_numpy(Classifier(bundle).logits(images))[valid_outputs.index]
    value = _compute_scored_metric(run, logits, valid_outputs)
    _check_identity(run, "the ONNX model on the image files", value)

    difference = float((logits - valid_outputs.logits).abs().max())
    logger.info(
        "exported {}: {} golden images pass, logits within {:.1e} of PyTorch",
        bundle,
        report.images,
        difference,
    )
    return {run.scored["metric"]: value, "max_logit_difference": difference}


def _measure_robustness(run: _TrainedRun) -> None:
    split = "test" if "test" in run.data.splits else "valid"
    records = run.data.records(split)
    classifier = Classifier(run.paths.bundle)
    curves = compute_robustness_curves(classifier, records)
    write_json(run.paths.robustness, {"split": split, **curves})


def _add_provenance(labels: LabelsMapping, scored: CheckpointScore) -> LabelsMapping:
    metric = ScoredMetric(
        name=scored["metric"], value=scored["value"], epoch=scored["epoch"], step=scored["step"]
    )
    provenance = Provenance(
        **labels.provenance.model_dump(exclude={"weights", "metric"}),
        weights=scored["weights"],
        metric=metric,
    )
    return labels.model_copy(update={"provenance": provenance})


def _check_identity(run: _TrainedRun, subject: str, value: float) -> None:
    """Raise an error if a metric differs from the one that was logged for the weights."""
    scored = run.scored
    tolerance = run.config.stages.identity_tolerance
    is_equal = abs(value - scored["value"]) <= tolerance  # False for NaN
    if not is_equal:
        raise IdentityError(
            f"{scored['metric']} was logged as {scored['value']:.6f} when best.ckpt was saved "
            f"(epoch {scored['epoch'] + 1}), but {subject} reaches {value:.6f}; the difference "
            f"exceeds stages.identity_tolerance={tolerance}. Either the weights differ, or the "
            "training device computes with lower precision (TF32 on a GPU). Find the cause before "
            "using the results"
        )


def _estimate_to_dict(estimate: object) -> dict[str, float | None]:
    assert isinstance(estimate, Estimate)
    return estimate.model_dump()


def evaluate_and_write(paths: RunPaths, allow_targets: Sequence[str]) -> None:
    """Evaluate a run, write the log, and at last evaluation.json.

    Raises:
        IdentityError, RunError: See `evaluate`.
        RunFailedError: A file cannot be written.
    """
    configure_logging()
    with failed_writes(paths):
        with log_to_file(paths.log):
            evaluation = evaluate(paths, allow_targets)

        text = json.dumps(asdict(evaluation), default=_estimate_to_dict)
        content = json.loads(text)
        write_json(paths.evaluation, content)


def warm_up_exporter() -> None:
    """Export a small network to memory, because the exporter loads most of its modules on use."""
    network = nn.Conv2d(3, 1, 1)
    network.eval()
    example = torch.zeros(1, 3, 1, 1)
    torch.onnx.export(network, (example,), dynamo=True, verbose=False)


def main() -> int:
    """Evaluate the run of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cls_train.stages.evaluate", description="Evaluate and export a run again."
    )
    parser.add_argument("run_folder", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument(
        "--allow-target",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="allow classes of this package, as in the run's allow_targets; can be repeated",
    )
    arguments = parser.parse_args()

    def evaluate_again() -> None:
        with explained_errors():
            _evaluate_again(RunPaths(arguments.run_folder), arguments.allow_target)

    return run_app_command("python -m cls_train.stages.evaluate", evaluate_again)


def _evaluate_again(run: RunPaths, allow_targets: Sequence[str]) -> None:
    read_config(run)  # before a lock is written into a folder that holds no run
    acquire_lock(run)
    try:
        remove_stale_drafts(run)
        evaluate_and_write(run, allow_targets)
    finally:
        release_lock(run)


if __name__ == "__main__":
    sys.exit(main())
