"""Settings that are checked before PyTorch is imported."""

import string
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_core._pydantic_core import list_all_errors

from cls_train.composition.arguments import CommandLine
from cls_train.composition.compose import Composer
from cls_train.composition.instantiate import check_node
from cls_train.composition.key_suggestions import KEYS_OF_OTHER_TRAINERS
from cls_train.composition.value_errors import EXPECTED
from cls_train.errors import ConfigError
from cls_train.main import compose_configs

CONF = Path(__file__).resolve().parents[3] / "conf"


ERRORS = {each["type"]: each for each in list_all_errors()}
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
        ("optimizer.amsgrad=yes", "optimizer.amsgrad: expected true or false"),
        ("optimizer.betas=3", "optimizer.betas"),
        ("trainer.max_epochs=abc", "trainer.max_epochs: expected an integer"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs: expected an integer"),
        ("trainer.max_epochs=99999999999999999999", "trainer.max_epochs: expected a number of"),
        ("trainer.benchmark=1", "trainer.benchmark: expected true or false, got 1"),
        ("data.batch_size=-1", "data.batch_size: expected a number of at least 1"),
        ("data.sampler=shufle", "data.sampler: expected 'shuffle' or 'weighted'"),
        ("data.gate.rare_class_under=x", "data.gate.rare_class_under: expected a"),
        ("data.growing_sizes=[{until:2,size:[8,8]}]", "data.growing_sizes.0.until: expected"),
        ("data.synthetic.train=x", "data.synthetic.train: expected an integer"),
        ("augmentation.color.brightness=-1", "augmentation.color.brightness: expected"),
        ("preprocessing.size=[0,64]", "preprocessing.size.0: expected a number of at least 1"),
        ("callbacks.ema.decay=x", "callbacks.ema.decay: expected a number"),
        ("callbacks.best_and_last.on_save_error=x", "on_save_error: expected 'stop' or"),
        ("loss.label_smoothing=true", "loss.label_smoothing: expected a number"),
        ("transfer=staged transfer.frozen=[x]", "transfer.frozen"),
        ("scheduler.warmup=x", "scheduler.warmup: expected a number"),
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
    ("setting", "expected"),
    [
        ("lr=0.1", "lr: unknown key; did you mean 'optimizer.lr'?"),
        ("batch_size=3", "batch_size: unknown key; did you mean 'data.batch_size'?"),
        ("batch-size=3", "batch-size: unknown key; did you mean 'data.batch_size'?"),
        ("batchsize=3", "batchsize: unknown key; did you mean 'data.batch_size'?"),
        ("name=first", "name: unknown key; did you mean 'run.name' or 'model.name'?"),
        ("epochs=3", "epochs: unknown key; did you mean 'trainer.max_epochs'?"),
        ("trainer.gpus=1", "trainer.gpus: Trainer takes no 'gpus'; did you mean 'trainer.devices'"),
        ("trainer.batch_size=3", "did you mean 'data.batch_size'?"),
        ("data.lr=3", "data.lr: DataModuleConfig takes no 'lr'; did you mean 'optimizer.lr'?"),
        ("run.epochs=3", "run.epochs: unknown key; did you mean 'trainer.max_epochs'?"),
        ("resume=true", "resume: unknown key; repeat the command with the same run.name to resume"),
        ("data=/my/images", "data=folder data.root=/my/images, or data=jsonl data.root=/my/images"),
    ],
)
def test_keys_in_the_wrong_section_or_of_other_trainers_get_suggestions(
    setting: str, expected: str
) -> None:
    assert expected in refusal(setting)


@pytest.mark.parametrize("path", sorted(set(KEYS_OF_OTHER_TRAINERS.values())))
def test_every_key_suggested_for_another_trainer_exists(path: str) -> None:
    message = refusal(f"{path}=[{{}}]")
    assert message.startswith(path)
    assert "unknown key" not in message
    assert "takes no" not in message


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("monitor=val_acc", "monitor: expected metric and mode, got 'val_acc'; set monitor.metric"),
        ("run=first", "run: expected name, root, and remote, got 'first'; set run.name=first"),
        ("stages=none", "got 'none'; set stages.report=false"),
        ("run=[a]", "run has keys of its own"),
        ("data.split=3", "data.split: expected valid, test, seed, and record, got 3"),
        ("callbacks.ema=false", "expected settings, got False; to turn it off, set callbacks.ema="),
        ("run.name=a/b", "run.name: expected letters, digits, and _ . = -, starting with a letter"),
        ("run.name=", "or digit, got ''; the folder is run.root"),
        ("seed=abc", "seed: expected an integer, got 'abc'"),
        ("data.batch_size=big", "data.batch_size: expected an integer, got 'big'"),
        ("stages.calibrate=x", "stages.calibrate: expected 'temperature' or 'vector', got 'x'"),
        ("allow_targets=[os]", "allow_targets.0: 'os' belongs to Python"),
    ],
)
def test_wrong_values_are_described_without_words_of_pydantic(setting: str, expected: str) -> None:
    message = refusal(setting)
    assert expected in message
    assert "Input should" not in message
    assert "Value error" not in message


@pytest.mark.parametrize("kind", sorted(EXPECTED.keys() - {"path_type"}))
def test_every_described_error_has_the_context_that_its_text_needs(kind: str) -> None:
    fields = [name for _, name, _, _ in string.Formatter().parse(EXPECTED[kind]) if name]
    example = ERRORS[kind]
    assert set(fields) <= set(example.get("example_context") or {})


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.max_epochs=-3",
        "trainer.precision=fp16",
        "data=folder data.root=/no/such/folder",
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
        f"sys.argv = ['apps/train', *'{setting}'.split()]; code = main(Path(r'{CONF}')); "
        "print(code, *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    exit_code, *modules = result.stdout.split()
    assert exit_code == "2"
    assert result.stderr.startswith("apps/train: ")
    assert {"torch", "lightning", "torchvision"}.isdisjoint(modules)


@pytest.mark.parametrize("key", ["run.root", "data.root", "data.store", "model.init_from"])
@pytest.mark.parametrize("value", ["x" * 10_000, "é" * 200, "~no-such-user/x"])
def test_paths_that_cannot_exist_are_named_with_their_key(key: str, value: str) -> None:
    assert refusal(f"data=synthetic_tiny {key}='{value}'").startswith(f"{key}: ")
