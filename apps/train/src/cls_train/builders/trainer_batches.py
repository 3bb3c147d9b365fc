"""Count the batches that the trainer's flags leave of the data, and refuse to train without any."""

from typing import Any

from cls_data import ClassificationDataModule, EvaluationSampler
from cls_train.composition.config import Node
from cls_train.distributed.ranks import get_ranks
from cls_train.errors import ConfigError


def check_batches(flags: Node, data: ClassificationDataModule) -> None:
    """Check that training and validation get at least one batch each, and that validation runs.

    Args:
        flags: Checked arguments of the Trainer.
        data: The data module, set up.

    Raises:
        ConfigError: The message names `trainer.KEY`.
    """
    train_batches = count_train_batches(flags, data)
    if train_batches < 1:
        raise ConfigError(_describe_too_small("limit_train_batches", flags, _all_train(data)))
    if _limit(flags.get("limit_val_batches"), _all_valid(data)) < 1:
        raise ConfigError(_describe_too_small("limit_val_batches", flags, _all_valid(data)))

    _check_rows_per_rank(flags, data)

    interval = flags.get("val_check_interval")
    if isinstance(interval, int) and interval > train_batches:
        raise ConfigError(
            f"trainer.val_check_interval: no validation would run, so there would be no best.ckpt; "
            f"expected at most {train_batches}, the training batches of an epoch, got {interval}. "
            "To validate less often than every epoch, set trainer.check_val_every_n_epoch"
        )


def _check_rows_per_rank(flags: Node, data: ClassificationDataModule) -> None:
    """Refuse a limit with which several ranks validate other rows than the evaluation.

    If the last batch has fewer rows than ranks, these rows belong to the batch before it.
    """
    limit = flags.get("limit_val_batches")
    rows = len(data.records("valid"))
    batch_size = data.config.eval_batch_size
    shared_batches = _all_valid(data)
    batches = _limit(limit, shared_batches)
    shared_rows = rows if batches == shared_batches else batches * batch_size
    evaluated_rows = min(rows, _limit(limit, -(-rows // batch_size)) * batch_size)
    if shared_rows != evaluated_rows:
        raise ConfigError(
            f"trainer.limit_val_batches: {limit} selects {shared_rows} images on "
            f"{get_ranks().count} devices, and {evaluated_rows} in the evaluation on one; remove "
            "the limit, or set another data.eval_batch_size"
        )


def count_train_batches(flags: Node, data: ClassificationDataModule) -> int:
    """Return the training batches of an epoch."""
    return _limit(flags.get("limit_train_batches"), _all_train(data))


def count_optimizer_steps(flags: Node, data: ClassificationDataModule) -> int:
    """Return the optimizer steps of the whole training."""
    accumulated = flags.get("accumulate_grad_batches") or 1
    steps_per_epoch = -(-count_train_batches(flags, data) // accumulated)
    epochs: int = flags["max_epochs"]
    return epochs * steps_per_epoch


def count_validation_rows(flags: Node, data: ClassificationDataModule) -> int:
    """Return how many rows of valid, from the first on, a validation during training uses."""
    batches = _limit(flags.get("limit_val_batches"), _all_valid(data))
    rows = len(data.records("valid"))
    return min(rows, batches * data.config.eval_batch_size)


def _all_train(data: ClassificationDataModule) -> int:
    rows = len(data.records("train"))
    return max(1, rows // data.config.batch_size)


def _all_valid(data: ClassificationDataModule) -> int:
    rows = len(data.records("valid"))
    sampler = EvaluationSampler(rows, data.config.eval_batch_size, world_size=get_ranks().count)
    return len(sampler)


def _limit(limit: Any, batches: int) -> int:
    """Return how many batches Lightning uses: a number, or a fraction rounded down."""
    if limit is None:
        return batches
    if isinstance(limit, float):
        return int(batches * limit)
    return min(int(limit), batches)


def _describe_too_small(key: str, flags: Node, batches: int) -> str:
    limit = flags[key]
    plural = "es" if batches > 1 else ""
    return (
        f"trainer.{key}: {limit} of {batches} batch{plural} is less than one; set a number of "
        f"batches, such as trainer.{key}=1, or a larger fraction"
    )
