"""Settings that are checked before PyTorch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import Composer
from cls_train.composition.instantiate import check_node
from cls_train.errors import ConfigError
from cls_train.main import compose_configs

CONF = Path(__file__).resolve().parents[3] / "conf"


COMPOSER = Composer(CONF, CommandLine())


def refusal(settings: str) -> str:
    """Return the message for settings that are refused."""
    with pytest.raises(ConfigError) as caught:
        compose_configs(CommandLine(tuple(settings.split())), COMPOSER)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("optimizer.lr='1e-3'", "optimizer.lr: expected a number, got '1e-3'"),
        ("optimizer.lr=", "optimizer.lr: expected a number, got ''"),
        ("optimizer.lr=null", "optimizer.lr: expected a number, got None"),
        ("optimizer.lr=[1]", "optimizer.lr: expected a number, got [1]"),
        ("optimizer.lr=nan", "optimizer.lr: expected a finite number, got nan"),
        ("optimizer.lr=1e400", "optimizer.lr: expected a finite number, got inf"),
        ("optimizer.amsgrad=yes", "optimizer.amsgrad: Input should be a valid boolean"),
        ("optimizer.betas=3", "optimizer.betas"),
        ("trainer.max_epochs=abc", "trainer.max_epochs: Input should be a valid integer"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs: Input should be a valid integer"),
        ("trainer.max_epochs=99999999999999999999", "trainer.max_epochs: expected a number of"),
        ("trainer.benchmark=1", "trainer.benchmark: Input should be a valid boolean, got 1"),
        ("data.batch_size=-1", "data.batch_size: Input should be greater than or equal to 1"),
        ("data.sampler=shufle", "data.sampler: Input should be 'shuffle' or 'weighted'"),
        ("data.gate.rare_class_under=x", "data.gate.rare_class_under: Input should be a valid"),
        ("data.growing_sizes=[{until:2,size:[8,8]}]", "data.growing_sizes.0.until: Input"),
        ("data.synthetic.train=x", "data.synthetic.train: Input should be a valid integer"),
        ("augmentation.color.brightness=-1", "augmentation.color.brightness: Input should be"),
        ("preprocessing.size=[0,64]", "preprocessing.size.0: Input should be greater"),
        ("callbacks.ema.decay=x", "callbacks.ema.decay: Input should be a valid number"),
        ("callbacks.best_and_last.on_save_error=x", "on_save_error: Input should be 'stop' or"),
        ("loss.label_smoothing=true", "loss.label_smoothing: Input should be a valid number"),
        ("transfer=staged transfer.frozen=[x]", "transfer.frozen"),
        ("scheduler.warmup=x", "scheduler.warmup: Input should be a valid number"),
        ("optimizer._partial_=maybe", "optimizer._partial_: expected true or false"),
    ],
)
def test_a7_a_value_of_the_wrong_type_names_its_key(settings: str, expected: str) -> None:
    assert expected in refusal(settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("augmentation.color.brigthness=1", "augmentation.color.brigthness: unknown key"),
        ("augmentation.color.brigthness=1", "did you mean 'brightness'?"),
        ("augmentation.geometri.rotation=1", "did you mean 'geometry'?"),
        ("data.gate.dark_image=off", "did you mean 'dark_images'?"),
        ("data.synthetic.trian=3", "did you mean 'train'?"),
        ("callbacks.ema.decai=0.9", "did you mean 'decay'?"),
        ("callbacks.emma.decay=0.9", "callbacks.emma: unknown name; did you mean 'ema'?"),
        ("callbacks.emma=null", "callbacks.emma: unknown name; did you mean 'ema'?"),
        ("stages.reject.precison=0.9", "did you mean 'precision'?"),
        ("trainer.plugins=[{_target_:cls_callbacks.AtomicChekpointIO}]", "'AtomicCheckpointIO'"),
        ("optimizer._target_=torch.optim.AdamWW", "torch.optim has no 'AdamWW'"),
        ("model._target_=cls_modles.build_backbone", "did you mean 'cls_models.build_backbone'?"),
        ("optimizer._target_=torch.optm.Adam", "did you mean 'torch.optim.Adam'?"),
        ("trainer._target_=lightning.pytorh.Trainer", "did you mean 'lightning.pytorch.Trainer'?"),
        (
            "model.name=resnet81",
            "model.name: unknown backbone 'resnet81'; did you mean 'resnet18'?",
        ),
        ("monitor.metric=valid_top2", "monitor.metric: 'valid_top2' is not logged; did you mean"),
    ],
)
def test_misspelled_names_at_any_depth_get_suggestions(settings: str, expected: str) -> None:
    assert expected in refusal(settings)


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        ("optimizer.xyz=1", ["params"]),
        ("model.xyz=1", ["num_classes", "image_size", "classes"]),
        ("scheduler.xyz=1", ["total_steps", "optimizer"]),
        ("trainer.xyz=1", ["callbacks", "logger", "default_root_dir"]),
        ("distillation=checkpoint distillation.run=x distillation.xyz=1", ["backbone"]),
    ],
)
def test_arguments_that_the_app_supplies_are_not_suggested(
    settings: str, hidden: list[str]
) -> None:
    _, _, names = refusal(settings).partition("alid names: ")
    listed = names.split(", ")
    assert len(listed) > 1
    assert set(hidden).isdisjoint(listed)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("augmentation=none augmentation.color.brightness=1", "augmentation.color: augmentation"),
        ("scheduler=none scheduler.warmup=0.1", "scheduler is none; choose one first, such as"),
        ("transfer.frozen=all_but_head", "such as transfer=fine_tune"),
        ("mixing.alpha=1", "mixing.alpha: mixing is none; choose one first, such as mixing=both"),
        ("distillation.run=x", "such as distillation=checkpoint"),
        ("~optimizer optimizer.lr=1", "optimizer.lr: optimizer is none; choose one first"),
    ],
)
def test_a_setting_below_a_group_that_is_off_says_how_to_choose_one(
    settings: str, expected: str
) -> None:
    assert expected in refusal(settings)


@pytest.mark.parametrize("name", ["params", "total_steps", "num_classes"])
def test_arguments_that_the_app_supplies_are_refused(name: str) -> None:
    key = {"params": "optimizer", "total_steps": "scheduler", "num_classes": "distillation"}[name]
    more = " distillation=checkpoint distillation.run=x" if key == "distillation" else ""
    message = refusal(f"{key}.{name}=3{more}")
    assert f"{key}.{name}: the app sets this argument; remove it" in message


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("LearningRateFinder", "callbacks=lr_finder"),
        ("BatchSizeFinder", "callbacks=batch_size_finder"),
        ("StochasticWeightAveraging", "callbacks.ema"),
        ("WeightAveraging", "callbacks.ema"),
        ("BackboneFinetuning", "transfer=staged"),
    ],
)
def test_a10_callbacks_that_ours_replace_are_refused_by_name(name: str, advice: str) -> None:
    for module in ("lightning.pytorch.callbacks", "lightning.pytorch.callbacks.some_module"):
        message = refusal(f"callbacks.x._target_={module}.{name}")
        assert advice in message
        assert message.index(advice) < message.index("is not allowed")
        with pytest.raises(ConfigError, match="is not allowed"):
            check_node({"_target_": f"{module}.{name}"}, "callbacks.x")


def test_a_plain_name_allows_one_package() -> None:
    ((config, _),) = compose_configs(CommandLine(("allow_targets=hypothesis",)), COMPOSER)
    assert config.allow_targets == ("hypothesis",)


def test_all_problems_of_the_settings_are_listed_at_once() -> None:
    message = refusal("data.batch_size=-1 trainer.max_epochs=x monitor.metric=loss")
    keys = [line.partition(":")[0] for line in message.splitlines()]
    assert keys == ["data.batch_size", "trainer.max_epochs", "monitor.metric"]


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.max_epoch=3",
        "trainer.max_epochs=abc",
        "data.batch_size=-1",
        "augmentation.color.brigthness=1",
        "model=resnet19",
        "model.name=resnet81",
        "sed=3",
        "optimizer._target_=torch.optm.Adam",
        "optimizer._target_=torch.optim.Adamm",
        "allow_targets=no_such_package",
    ],
)
def test_d12_mistakes_are_reported_without_importing_torch(setting: str) -> None:
    code = (
        "import sys; from pathlib import Path; from cls_train.main import main; "
        f"sys.argv = ['apps/train', '{setting}']; code = main(Path(r'{CONF}')); "
        "print(code, *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    exit_code, *modules = result.stdout.split()
    assert exit_code == "2"
    assert result.stderr.startswith("apps/train: ")
    assert {"torch", "lightning", "torchvision"}.isdisjoint(modules)
