"""The second half of a run, in a clean process: prove which weights are in best.ckpt, export them, prove it again.

Run by `uv run apps/train` after the fit, and by hand for any run: `uv run python -m cls_train.stages.evaluate RUN_FOLDER`.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from loguru import logger
from torch import Tensor
from torch.nn import functional

from cls_callbacks import ScoredWeights
from cls_data import ClassificationDataModule, EvaluationOutputs, Predictions, keep_freed_memory
from cls_export import Classifier, LabelsMapping, Provenance, ScoredMetric, verify_bundle
from cls_export.convert.exporter import write_bundle
from cls_models import ClassificationModule, classification_metrics
from cls_report import Answers, Estimate, EvaluationScores, score
from cls_train.composition.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
    optimize_for_device,
)
from cls_train.composition.config import RunConfig
from cls_train.console import exit_on_user_error
from cls_train.errors import IdentityError, RunError
from cls_train.logs import log_also_to, set_up_logs
from cls_train.run_folder import RunFolder, load_checkpoint
from cls_train.stages.calibrate import CalibrationFigures, calibrate
from cls_train.stages.robustness import degradation_curves

GOLDEN_IMAGES = 8


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of the best weights, as evaluation.json holds them.

    Attributes:
        scored: what the checkpoint says that they earned.
        metrics: by split, as the module logs them.
        scores: by split, the same and more with their 95 % intervals.
        calibration: the expected calibration error before and after; None where nothing was exported or
            calibrated, or half of valid has no mistake to learn from.
        onnx: the ONNX file's value of the monitored metric, and the largest difference of a logit from PyTorch;
            None where nothing was exported.
    """

    scored: ScoredWeights
    metrics: dict[str, dict[str, float]]
    scores: dict[str, EvaluationScores]
    calibration: CalibrationFigures | None
    onnx: dict[str, float] | None


def evaluate(folder: RunFolder) -> Evaluation:
    """Evaluate best.ckpt on valid and test, export it, and check all figures against the logged one.

    Raises:
        IdentityError: PyTorch or the ONNX file, on validation, gives another value than was logged in training.
        RunError: the folder holds no run or no best.ckpt.
    """
    keep_freed_memory()
    config = _in_single_precision(folder.read_config())
    check_nodes(config)
    seed_everything(config.seed, workers=True, verbose=False)
    checkpoint = load_checkpoint(folder.best)
    data = build_data(config, build_preprocessing(config), checked=True)
    data.setup()
    _refuse_other_data(data, LabelsMapping.load(folder.labels))
    module = build_module(config, data, trained=True, taught=False)
    module.load_state_dict(checkpoint["state_dict"])
    scored: ScoredWeights = checkpoint["scored"]

    trainer = build_trainer(config, folder.path, build_callbacks(config).all, logging=False)
    optimize_for_device(module, trainer)
    metrics = {"valid": dict(trainer.validate(module, datamodule=data, verbose=False)[0])}
    assert module.outputs is not None
    valid = module.outputs
    _check_identity(
        "best.ckpt in a clean process", metrics["valid"][scored["metric"]], scored, config
    )
    scores = {"valid": _scores(valid, data)}
    if "test" in data.splits:
        metrics["test"] = dict(trainer.test(module, datamodule=data, verbose=False)[0])
        scores["test"] = _scores(module.outputs, data)
    else:
        logger.warning(
            "{} has no test/: the figures below are those of valid, by which the weights were chosen",
            data.config.root,
        )
    if not config.stages.export:
        return Evaluation(scored, metrics, scores, None, None)
    groups = [record.group for record in data.records("valid")]
    mapping = _mapping(LabelsMapping.load(folder.labels), scored)
    labels, calibration = calibrate(mapping, valid, groups, config.stages)
    exported = module.cpu().to(memory_format=torch.contiguous_format)
    onnx = _export(folder, exported, labels, data, valid, scored, config)
    if config.stages.degrade:
        split = "test" if "test" in data.splits else "valid"
        curves = degradation_curves(Classifier(folder.bundle), data.records(split))
        folder.write_json(folder.degradation, {"split": split, **curves})
    return Evaluation(scored, metrics, scores, calibration, onnx)


def _scores(outputs: EvaluationOutputs, data: ClassificationDataModule) -> EvaluationScores:
    return score(Answers.of(Predictions.of(outputs, data.records(outputs.split), data.classes)))


def _refuse_other_data(data: ClassificationDataModule, labels: LabelsMapping) -> None:
    if data.fingerprint != labels.provenance.data_fingerprint:
        raise RunError(
            f"{data.config.root}: rows or images have changed since the run was trained on them"
        )


def _in_single_precision(config: RunConfig) -> RunConfig:
    """Evaluate on one device in full float32, whatever training used: it is what the deployed runtime computes in."""
    # TF32, the default of convolutions on a GPU, moves logits by 1e-3. Set the old way: the ONNX exporter of torch 2.15
    # asks the old way, and refuses once the new one (conv.fp32_precision) was used.
    torch.backends.cudnn.allow_tf32 = False
    trainer = {
        **config.trainer,
        "precision": "32-true",
        "devices": 1,
        "strategy": "auto",
        "num_nodes": 1,
    }
    return config.model_copy(update={"trainer": trainer})


def scores(logits: Tensor, labels: Tensor, split: str) -> dict[str, float]:
    """Compute the scalar metrics of gathered logits [N, C], named as the module logs them."""
    values = classification_metrics(logits.shape[1])(logits, labels)
    named = {f"{split}_{name}": float(value) for name, value in values.items() if value.ndim == 0}
    return {f"{split}_loss": float(functional.cross_entropy(logits, labels)), **named}


def _export(
    folder: RunFolder,
    module: ClassificationModule,
    labels: LabelsMapping,
    data: ClassificationDataModule,
    valid: EvaluationOutputs,
    scored: ScoredWeights,
    config: RunConfig,
) -> dict[str, float]:
    """Write the bundle, then answer for the validation files with it as a consumer would."""
    records = data.records("valid")
    step = max(1, len(records) // GOLDEN_IMAGES)
    write_bundle(
        module.backbone,
        labels,
        folder.bundle,
        [record.path for record in records[::step]][:GOLDEN_IMAGES],
    )
    report = verify_bundle(folder.bundle)
    if not report.passed:
        raise IdentityError(
            f"{folder.bundle} fails its own golden test: {'; '.join(report.failures)}"
        )
    logits = torch.from_numpy(Classifier(folder.bundle).logits([record.path for record in records]))
    value = scores(logits[valid.index], valid.labels, "valid")[scored["metric"]]
    _check_identity("the ONNX file, from image bytes", value, scored, config)
    difference = float((logits[valid.index] - valid.logits).abs().max())
    logger.info(
        "exported {}: {} golden images pass, logits within {:.1e} of PyTorch",
        folder.bundle,
        report.images,
        difference,
    )
    return {scored["metric"]: value, "max_logit_difference": difference}


def _mapping(labels: LabelsMapping, scored: ScoredWeights) -> LabelsMapping:
    metric = ScoredMetric(
        name=scored["metric"], value=scored["value"], epoch=scored["epoch"], step=scored["step"]
    )
    provenance = Provenance(
        **labels.provenance.model_dump(exclude={"weights", "metric"}),
        weights=scored["weights"],
        metric=metric,
    )
    return labels.model_copy(update={"provenance": provenance})


def _check_identity(what: str, value: float, scored: ScoredWeights, config: RunConfig) -> None:
    difference = abs(value - scored["value"])
    if not difference <= config.stages.identity_tolerance:
        raise IdentityError(
            f"{scored['metric']} was logged as {scored['value']:.6f} when best.ckpt was saved (epoch "
            f"{scored['epoch'] + 1}), but {what} gives {value:.6f}: further apart than stages.identity_tolerance="
            f"{config.stages.identity_tolerance}. Either these are not the weights that earned it, or the device "
            "that trained rounds by more than was allowed for (TF32 on a GPU); "
            "nothing here can be trusted until that is understood"
        )


def _plain(estimate: object) -> dict[str, float | None]:
    assert isinstance(estimate, Estimate)
    return estimate.model_dump()


@exit_on_user_error
def main() -> None:
    """Evaluate the run whose folder is given on the command line."""
    if len(sys.argv) != 2:
        raise RunError("usage: python -m cls_train.stages.evaluate RUN_FOLDER")
    set_up_logs()
    folder = RunFolder(Path(sys.argv[1]))
    with log_also_to(folder.log):
        evaluation = evaluate(folder)
    folder.write_json(folder.evaluation, json.loads(json.dumps(asdict(evaluation), default=_plain)))


if __name__ == "__main__":
    main()
