"""The first half of a run, in this process: check, read the data, train."""

import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import Logger
from loguru import logger

from cls_callbacks import Interrupted, Throughput, TrainingWarnings
from cls_data import LoaderWorkerError, keep_freed_memory
from cls_data.gate.report import as_json
from cls_export import LabelsMapping, Provenance
from cls_train.composition.builders import (
    build_callbacks,
    build_data,
    build_module,
    build_preprocessing,
    build_trainer,
    check_nodes,
    optimize_for_device,
    record_stem,
)
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_model_input
from cls_train.errors import ConfigError, RunError
from cls_train.logs import keep_lines, log_also_to
from cls_train.run_folder import RunFolder

_DEPENDED_ON = (
    "cls-data",
    "cls-models",
    "cls-callbacks",
    "cls-export",
    "cls-report",
    "lightning",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
)


@dataclass(frozen=True, slots=True)
class FitResult:
    """What the fit leaves to say: seconds include reading the data; images per second do not include validation.

    `warnings` are those of `cls_callbacks.TrainingWarnings`; `loggers` take what is found out afterwards.
    """

    folder: RunFolder
    seconds: float
    images_per_second: float | None
    best_score: float | None
    warnings: list[str]
    resumed: bool
    loggers: list[Logger]


def fit(config: RunConfig) -> FitResult:
    """Train, or go on training; everything that can be checked is checked before the folder is made.

    Raises:
        ConfigError, DataError, RunError: before the first step, naming what to change.
    """
    started = time.perf_counter()
    keep_freed_memory()
    check_nodes(config)
    if config.trainer.get("max_steps", -1) != -1:
        raise ConfigError(
            "trainer.max_steps: a run that ends so cannot be resumed exactly; set trainer.max_epochs"
        )
    folder = RunFolder.named(config, str(config.model.get("name", "model")))
    folder.refuse_if_taken()
    interrupted = folder.interrupted(config)
    with keep_lines() as earlier:
        seed_everything(config.seed, workers=True, verbose=False)
        config = resolve_model_input(config, interrupted)
        preprocessing = build_preprocessing(config)
        callbacks = build_callbacks(config)
        data = build_data(config, preprocessing)
        # Built before the data is read and the folder made, so that a missing GPU or logger is known by then.
        trainer = build_trainer(config, folder.path, callbacks.all, logging=True)
        data.prepare_data()
        data.setup()
        if interrupted is not None:
            config = config.model_copy(
                update={"model": interrupted.model}
            )  # the same but for the stem that was chosen
        # Its checkpoint holds the weights: the file or the run that they came from may be gone by now.
        module = build_module(config, data, trained=interrupted is not None)
        config = record_stem(config, module.backbone)
        optimize_for_device(module, trainer)
        # Else loggers would get nothing of an epoch of fewer steps.
        steps = max(1, len(data.records("train")) // data.config.batch_size)
        trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)  # type: ignore[attr-defined]  # set undeclared
    provenance = Provenance(
        run=folder.path.name, code_commit=code_commit(), data_fingerprint=data.fingerprint
    )
    labels = LabelsMapping.from_classes(data.class_to_idx, preprocessing, provenance)
    callbacks.best_and_last.metadata = {
        "config": config.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json"),
        "versions": versions(),
    }
    checkpoint = folder.begin(config, labels)
    if checkpoint is None:
        folder.write_json(folder.origin, {"arguments": sys.argv[1:], "versions": versions()})
    if data.report is not None:
        folder.write_json(folder.data_check, as_json(data.report))
    with log_also_to(folder.log, earlier):
        if checkpoint is not None:
            checkpoint = folder.sound_checkpoint()  # before Lightning stumbles over a damaged one
        logger.info(
            "run {}: {}",
            folder.path,
            "starts" if checkpoint is None else f"goes on from {checkpoint}",
        )
        try:
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=checkpoint,
                weights_only=True if checkpoint else None,
            )
        except Interrupted as interrupted:
            logger.warning(
                "{}: left at step {} of epoch {}; the same command with run.name={} goes on from {}",
                interrupted.signal,
                trainer.global_step,
                trainer.current_epoch + 1,
                folder.path.name,
                folder.last if folder.last.exists() else "the beginning",
            )
            raise
        except SystemExit as left:
            # Before the first step Lightning, and not PreemptionCheckpoint, hears Ctrl-C, and leaves with 1 (2.6.6).
            if isinstance(left.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else LoaderWorkerError.recognized(error)
            if cause is None:
                raise
            raise RunError(_stopped_by(cause, folder, trainer.global_step)) from error
    throughput = next(
        (callback for callback in callbacks.all if isinstance(callback, Throughput)), None
    )
    warnings = [
        line
        for callback in callbacks.all
        if isinstance(callback, TrainingWarnings)
        for line in callback.said
    ]
    return FitResult(
        folder,
        seconds=time.perf_counter() - started,
        images_per_second=throughput.images / throughput.seconds
        if throughput and throughput.seconds
        else None,
        best_score=callbacks.best_and_last.best_score,
        warnings=warnings,
        resumed=checkpoint is not None,
        loggers=trainer.loggers,
    )


def _stopped_by(error: OSError | LoaderWorkerError, folder: RunFolder, step: int) -> str:
    what = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        what = f"{error.strerror}: {error.filename or folder.path}"
    kept = (
        f"repeat the command with run.name={folder.path.name}: it goes on from {folder.last}"
        if folder.last.exists()
        else "start again; no checkpoint had been saved yet"
    )
    return f"the training stopped at step {step}: {what}. When the cause is mended, {kept}"


def versions() -> dict[str, str]:
    """Return the versions of what a run's figures depend on."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _DEPENDED_ON},
    }


def code_commit() -> str | None:
    """Return the commit of the training code, `-dirty` appended where the work tree differs; None outside git."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(here, "status", "--porcelain") else head
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
