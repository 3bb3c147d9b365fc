"""One setting turns everything on or off that makes steps on a GPU faster."""

from typing import Any

import pytest

from cls_callbacks import BestAndLastCheckpoint
from cls_models import CudaGraphCallback
from cls_train.builders import build_callbacks, build_data, build_preprocessing
from cls_train.composition.config import RunConfig
from cls_train.composition.resolve_preprocessing import resolve_preprocessing
from cls_train.errors import ConfigError

OLD_SETTING = "+callbacks.cuda_graph={_target_: cls_models.CudaGraphCallback}"
"""How steps were captured before there was one setting."""


def count_graphs(config: RunConfig) -> int:
    return sum(isinstance(each, CudaGraphCallback) for each in build_callbacks(config).all)


@pytest.mark.parametrize("overrides", [[], [OLD_SETTING]], ids=["new", "old"])
@pytest.mark.parametrize("callbacks", ["default", "none"])
def test_steps_are_captured_unless_acceleration_is_off(
    composed: Any, callbacks: str, overrides: list[str]
) -> None:
    overrides = [f"callbacks={callbacks}", *overrides]
    assert count_graphs(composed(*overrides)) == 1
    assert count_graphs(composed(*overrides, "acceleration=off")) == 0


@pytest.mark.parametrize("asynchronous", ["auto", "true"])
def test_checkpoints_are_written_between_steps_if_acceleration_is_off(
    composed: Any, asynchronous: str
) -> None:
    override = f"++callbacks.best_and_last.asynchronous={asynchronous}"

    def build(*overrides: str) -> BestAndLastCheckpoint:
        return build_callbacks(composed(override, *overrides)).best_and_last

    assert build().asynchronous == ("auto" if asynchronous == "auto" else True)
    assert build("acceleration=off").asynchronous is False


def test_batches_are_not_prepared_ahead_if_acceleration_is_off(composed: Any) -> None:
    for override, expected in (("acceleration=auto", True), ("acceleration=off", False)):
        config = resolve_preprocessing(composed(override))
        assert build_data(config, build_preprocessing(config))._should_prefetch is expected


def test_the_word_off_of_yaml_is_understood(composed: Any) -> None:
    settings = composed().model_dump()
    for value in (False, "off"):  # YAML reads off as false
        assert RunConfig.from_dict({**settings, "acceleration": value}).acceleration == "off"


@pytest.mark.parametrize("value", ["fast", "true", "null", "1"])
def test_another_value_is_refused_with_the_valid_ones(composed: Any, value: str) -> None:
    with pytest.raises(ConfigError, match=r"acceleration: .*'auto' or 'off'"):
        composed(f"acceleration={value}")
