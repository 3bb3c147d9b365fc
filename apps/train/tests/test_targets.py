from typing import Any

import pytest

from cls_train import ConfigError
from cls_train.targets import build, check_node


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.open",
        "builtins.eval",
        "shutil.copy",
        "subprocess.run",
        "cls_data.store.hashlib.sha256",
        "cls_train.fit.subprocess.run",
        "lightning.pytorch.trainer.trainer.os.system",
        "torch.nn.modules.module.torch.load",
        "torch.optim",
        "cls_data.annotations.SPLITS",
        "torch.load",
        "",
        3,
    ],
)
def test_nothing_but_our_own_and_named_libraries_may_be_built(target: Any) -> None:
    for node in ({"_target_": target}, {"_target_": "torch.nn.Sequential", "inner": [{"deep": {"_target_": target}}]}):
        with pytest.raises(
            ConfigError, match=r"may not be built|not a class or function of an allowed package|takes no"
        ):
            check_node(node, "model")


def test_a_misspelt_class_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"callbacks.ema._target_: cls_callbacks has no 'EMAA'; did you mean 'EMA'\?"):
        check_node({"_target_": "cls_callbacks.EMAA"}, "callbacks.ema")


def test_a_misspelt_argument_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"ema.decai: EMA takes no 'decai'; did you mean 'decay'\?"):
        check_node({"_target_": "cls_callbacks.EMA", "decai": 0.9}, "ema")


def test_a_refused_argument_is_named_by_its_key_path() -> None:
    with pytest.raises(ConfigError, match=r"^augmentation: horizontal_flip is a share of the samples"):
        build({"_target_": "cls_data.LightAugmentation", "horizontal_flip": 3}, "augmentation")
    with pytest.raises(ConfigError, match=r"preprocessing.mean: Field required"):
        build({"_target_": "cls_export.Preprocessing", "size": [8, 8]}, "preprocessing")


def test_run_time_values_are_added_at_the_end() -> None:
    loss = build({"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.2}, "loss", ignore_index=3)
    assert (loss.label_smoothing, loss.ignore_index) == (0.2, 3)
