"""Which arguments of Lightning's Trainer the app supports, and with which values.

The values are checked before anything is built. `trainer_batches.py` checks those whose validity
depends on the data.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from loguru import logger

from cls_train.composition.config import Node
from cls_train.distributed.devices import DDP, uses_processes
from cls_train.errors import ConfigError

ENVIRONMENT_PREFIX = "PL_TRAINER_"
"""Lightning takes defaults of the Trainer from variables that start with this."""

PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")
_SHORT_PRECISIONS = ("32", "16", "bf16")
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_MAX_DEVICES = 1024
_SHARDED_STRATEGIES = ("fsdp", "deepspeed")


@dataclass(frozen=True, slots=True)
class SupportedFlag:
    """The values that the app supports.

    Attributes:
        is_valid: Whether a value other than null is supported.
        expected: Describes these values.
        allows_null: Whether null is supported, which is then the same as leaving the flag out.
    """

    is_valid: Callable[[Any], bool]
    expected: str
    allows_null: bool = True


@dataclass(frozen=True, slots=True)
class RefusedFlag:
    """A flag that cannot be changed.

    Attributes:
        neutral: Its values without effect.
        reason: Why it cannot be changed, and what to do instead.
    """

    neutral: tuple[Any, ...]
    reason: str


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(minimum: int, *, allows_null: bool = True) -> SupportedFlag:
    def is_valid(value: Any) -> bool:
        return _is_integer(value) and value >= minimum

    return SupportedFlag(is_valid, f"an integer of at least {minimum}", allows_null)


def _one_of(*choices: Any, allows_null: bool = True) -> SupportedFlag:
    def is_valid(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)

    names = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
    return SupportedFlag(is_valid, " or ".join(names), allows_null)


def _is_number_of_batches(value: Any) -> bool:
    if _is_integer(value):
        return bool(value >= 1)
    return isinstance(value, float) and 0 < value <= 1


def _is_clip_value(value: Any) -> bool:
    is_number = _is_integer(value) or isinstance(value, float)
    return is_number and 0 <= value < math.inf


def parse_max_time(value: Any) -> float | None:
    """Return the seconds of a `max_time`; None if it is not a valid one."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value)
        if match is None:
            return None
        days, hours, minutes, seconds = map(int, match.groups())
        value = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    if not isinstance(value, dict):
        return None
    try:
        return timedelta(**value).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _is_max_time(value: Any) -> bool:
    seconds = parse_max_time(value)
    return seconds is not None and seconds > 0


def _is_devices(value: Any) -> bool:
    if isinstance(value, list):
        are_indices = all(_is_integer(index) and index >= 0 for index in value)
        return are_indices and 0 < len(value) == len(set(value))
    if isinstance(value, str):
        return value == "auto" or (value.isdecimal() and int(value) >= 1)
    return _is_integer(value) and 1 <= value <= _MAX_DEVICES


def _is_precision(value: Any) -> bool:
    # The builder checks whether the device supports it.
    return str(value) in (*PRECISIONS, *_SHORT_PRECISIONS)


def _is_profiler(value: Any) -> bool:
    return value in ("simple", "advanced", "pytorch") or isinstance(value, dict)


def _is_list_of_nodes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_BATCHES = SupportedFlag(
    _is_number_of_batches, "a number of batches of at least 1, or a fraction above 0, up to 1.0"
)
_BOOLEAN = _one_of(True, False)

SUPPORTED: dict[str, SupportedFlag] = {
    "accelerator": _one_of(*_ACCELERATORS, allows_null=False),
    "devices": SupportedFlag(
        _is_devices,
        "a number of devices of at least 1, a list of indices, such as [0, 1], or auto",
        allows_null=False,
    ),
    "strategy": _one_of("auto", DDP, allows_null=False),
    "num_nodes": _integer(1, allows_null=False),
    "sync_batchnorm": _one_of(True, False, allows_null=False),
    "precision": SupportedFlag(_is_precision, " or ".join(PRECISIONS)),
    "max_epochs": _integer(1, allows_null=False),
    "min_epochs": _integer(0),
    "min_steps": _integer(0),
    "max_time": SupportedFlag(_is_max_time, "a time above 0, as DD:HH:MM:SS or {hours: 2}"),
    "limit_train_batches": _BATCHES,
    "limit_val_batches": _BATCHES,
    "val_check_interval": _BATCHES,
    "check_val_every_n_epoch": _integer(1, allows_null=False),
    "num_sanity_val_steps": _integer(-1),
    "log_every_n_steps": _integer(0),
    "enable_progress_bar": _BOOLEAN,
    "enable_model_summary": _BOOLEAN,
    "accumulate_grad_batches": _integer(1, allows_null=False),
    "gradient_clip_val": SupportedFlag(_is_clip_value, "a finite number of at least 0"),
    "gradient_clip_algorithm": _one_of("norm", "value"),
    "deterministic": _one_of(True, False, "warn"),
    "benchmark": _BOOLEAN,
    "inference_mode": _one_of(True, False, allows_null=False),
    "use_distributed_sampler": _one_of(True, False, allows_null=False),
    "profiler": SupportedFlag(_is_profiler, "simple, advanced, pytorch, or a _target_"),
    "detect_anomaly": _one_of(True, False, allows_null=False),
    "plugins": SupportedFlag(_is_list_of_nodes, "a list of _target_ with arguments"),
    "enable_autolog_hparams": _one_of(True, False, allows_null=False),
}

REFUSED: dict[str, RefusedFlag] = {
    "logger": RefusedFlag((), "the app sets this argument; choose loggers with logger=NAME"),
    "callbacks": RefusedFlag(
        (), "the app sets this argument; add one as callbacks.NAME._target_=CLASS"
    ),
    "default_root_dir": RefusedFlag(
        (), "the app sets this argument; remove it, and set run.root and run.name"
    ),
    "fast_dev_run": RefusedFlag(
        (False, 0),
        "it turns off the checkpoints that the app evaluates; for a quick try, set debug=tiny "
        "or trainer.limit_train_batches",
    ),
    "barebones": RefusedFlag(
        (False,), "it turns off the checkpoints that the app evaluates; set callbacks=none"
    ),
    "enable_checkpointing": RefusedFlag(
        (True, None), "the app resumes from, evaluates, and exports checkpoints"
    ),
    "max_steps": RefusedFlag(
        (-1,), "a run limited by steps cannot be resumed exactly; set trainer.max_epochs"
    ),
    "overfit_batches": RefusedFlag(
        (0, 0.0),
        "it replaces the sampler, and validates on training images; to overfit on purpose, set "
        "trainer.limit_train_batches and augmentation=none",
    ),
    "limit_test_batches": RefusedFlag(
        (1.0, None), "the final evaluation uses every image; remove it"
    ),
    "limit_predict_batches": RefusedFlag((1.0, None), "the app does not call predict; remove it"),
    "reload_dataloaders_every_n_epochs": RefusedFlag(
        (0,), "images are read once, before training; remove it"
    ),
    "model_registry": RefusedFlag((None,), "the app does not upload models; remove it"),
}


def check_trainer_flags(flags: Node) -> None:
    """Check the Trainer's arguments, and warn about those without effect.

    Raises:
        ConfigError: A flag has an unsupported value; the message names `trainer.KEY`.
    """
    _check_environment()
    check_flag_values(flags)
    _warn_about_ineffective_flags(flags)


def check_flag_values(flags: Node) -> None:
    """Check the Trainer's arguments, without PyTorch.

    Raises:
        ConfigError: See `check_trainer_flags`.
    """
    for key, value in flags.items():
        _check_flag(key, value)
    _check_combinations(flags)


def _check_environment() -> None:
    for name in sorted(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            flag = name.removeprefix(ENVIRONMENT_PREFIX).lower()
            raise ConfigError(
                f"the environment variable {name} would change the trainer without being recorded "
                f"in config.yaml; unset it, and set trainer.{flag}"
            )


def _check_flag(key: str, value: Any) -> None:
    refused = REFUSED.get(key)
    if refused is not None:
        if not _is_neutral(value, refused):
            raise ConfigError(f"trainer.{key}: {refused.reason} (got {value!r:.200})")
        return

    if key == "strategy" and str(value).startswith(_SHARDED_STRATEGIES):
        raise ConfigError(
            f"trainer.strategy: {value!r} splits weights that are too large for one GPU; a "
            "classifier fits into one, and the app resumes from, evaluates, and exports "
            f"checkpoints of whole networks. Set trainer.strategy={DDP}"
        )
    supported = SUPPORTED.get(key)
    if supported is None or (value is None and supported.allows_null):
        return
    try:
        is_valid = value is not None and supported.is_valid(value)
    except (TypeError, ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        expected = supported.expected
        null = " or null" if supported.allows_null else ""
        raise ConfigError(f"trainer.{key}: expected {expected}{null}, got {value!r:.200}")


def _is_neutral(value: Any, refused: RefusedFlag) -> bool:
    return any(type(value) is type(each) and value == each for each in refused.neutral)


def _check_combinations(flags: Node) -> None:
    epochs = flags.get("max_epochs")
    if epochs is None:
        raise ConfigError("trainer.max_epochs: expected an integer of at least 1, got null")

    epochs_between_validations = flags.get("check_val_every_n_epoch", 1)
    if epochs_between_validations > epochs:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch: no validation would run, so there would be no "
            f"best.ckpt; expected at most trainer.max_epochs={epochs}, "
            f"got {epochs_between_validations}"
        )
    if flags.get("sync_batchnorm") and flags.get("accelerator") == "cpu":
        raise ConfigError(
            "trainer.sync_batchnorm: PyTorch synchronizes batch normalization on GPUs only; remove "
            "it, or set trainer.accelerator=gpu"
        )
    min_epochs = flags.get("min_epochs") or 0
    if min_epochs > epochs:
        raise ConfigError(
            f"trainer.min_epochs: expected at most trainer.max_epochs={epochs}, got {min_epochs}"
        )


def _warn_about_ineffective_flags(flags: Node) -> None:
    if flags.get("sync_batchnorm") and not uses_processes(flags):
        logger.warning("trainer.sync_batchnorm has no effect on one device")
    if flags.get("gradient_clip_algorithm") and not flags.get("gradient_clip_val"):
        logger.warning(
            "trainer.gradient_clip_algorithm has no effect without trainer.gradient_clip_val"
        )
    if flags.get("enable_model_summary"):
        logger.warning(
            "trainer.enable_model_summary has no effect; callbacks.model_info writes a summary"
        )
