"""Settings that only the data or the network can check, before the run folder is created."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from cls_models import ClassificationModule
from cls_train.builders import build_data, build_module, build_preprocessing
from cls_train.errors import ConfigError


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Warnings that are logged while a test runs."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    yield lines
    logger.remove(sink)


@pytest.fixture
def build(composed: Any, data_root: Path) -> Callable[..., ClassificationModule]:
    """Build the module of a run on the small data set."""

    def build_module_of(*overrides: str) -> ClassificationModule:
        config = composed("data=jsonl", f"data.root={data_root}", *overrides)
        data = build_data(config, build_preprocessing(config))
        data.setup()
        return build_module(config, data)

    return build_module_of


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            "scheduler=one_cycle trainer.max_epochs=2",
            "scheduler: one_cycle needs at least 3 optimizer steps",
        ),
        (
            "scheduler=plateau scheduler.monitor=valid_f1",
            "scheduler.monitor: 'valid_f1' is not logged; did you mean",
        ),
        (
            "model=torchvision model.name=alexnet preprocessing.size=[64,64] "
            "data.growing_sizes=[{until:0.5,size:[16,16]}]",
            "data.growing_sizes: the network cannot process images of 16 x 16 pixels",
        ),
        (
            "model=torchvision model.name=alexnet preprocessing.size=[24,24]",
            "images of 24x24 pixels; the smallest square that works is 63x63",
        ),
        (
            "data.batch_size=1 preprocessing.size=[64,64] "
            "data.growing_sizes=[{until:0.5,size:[32,32]}]",
            "would get one value per channel at 32x32 px",
        ),
    ],
)
def test_settings_that_data_or_network_refuse_are_reported_before_training(
    run_app: Any, data_root: Any, overrides: str, expected: str
) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", *overrides.split())
    assert code == 2
    assert expected in message
    assert "Traceback" not in message
    assert not (data_root.parent / "runs").exists()


def test_growing_sizes_with_cached_features_log_a_warning(run_app: Any, data_root: Any) -> None:
    cached = ["transfer=linear_probe", "transfer.cache_features=true", "augmentation=none"]
    settings = [
        "preprocessing.size=[32,32]",
        "stages.evaluate=false",
        "callbacks=none",
        "trainer.max_epochs=1",
    ]
    growing = "data.growing_sizes=[{until:0.5,size:[16,16]}]"
    code, message = run_app("data=jsonl", f"data.root={data_root}", *cached, *settings, growing)
    assert code == 0
    assert "data.growing_sizes has no effect with transfer.cache_features" in message


@pytest.mark.parametrize("transfer", ["linear_probe", "staged", "fine_tune"])
def test_transfer_from_random_weights_logs_a_warning(
    build: Any, warnings: list[str], transfer: str
) -> None:
    build(f"transfer={transfer}")
    (line,) = warnings
    assert line.startswith("transfer: the network starts from random weights")
    assert "set model.weights=DEFAULT or model.init_from=RUN" in line


def test_transfer_from_pretrained_weights_logs_no_warning(
    build: Any, warnings: list[str], weights_file: Path, make_run: Any
) -> None:
    for start in (f"model.weights={weights_file}", f"model.init_from={make_run()}"):
        build("transfer=fine_tune", start)
    assert warnings == []


def test_a_teacher_with_another_resize_logs_a_warning(
    build: Any, warnings: list[str], make_run: Any
) -> None:
    teacher = [
        "distillation=checkpoint",
        f"distillation.run={make_run('preprocessing=letterbox64')}",
    ]
    build(*teacher, "preprocessing=letterbox64", "preprocessing.size=[32,32]")
    assert warnings == []
    build(*teacher, "preprocessing=squash64")
    (line,) = warnings
    assert (
        "distillation: the teacher was trained with resize 'letterbox', this run uses 'squash'"
        in line
    )


TORCH_SCHEDULES = "torch.optim.lr_scheduler"


@pytest.mark.parametrize(
    "scheduler",
    [
        "{_target_: StepLR, step_size: 2}",
        "{_target_: MultiStepLR, milestones: [1, 2]}",
        "{_target_: ExponentialLR, gamma: 0.9}",
        "{_target_: CosineAnnealingLR, T_max: 5}",
        "{_target_: OneCycleLR, max_lr: 0.1}",
        "{_target_: CyclicLR, base_lr: 0.01, max_lr: 0.1}",
        "{_target_: LinearLR}",
    ],
)
def test_schedule_of_pytorch_passes_the_trial_run(build: Any, scheduler: str) -> None:
    node = scheduler.replace("_target_: ", f"_target_: {TORCH_SCHEDULES}.")
    module = build(f"scheduler={node}")
    assert isinstance(module, ClassificationModule)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("{_target_: StepLR}", r"scheduler\.step_size is required"),
        ("{_target_: StepLR, step_size: 0}", "scheduler: integer modulo by zero"),
        ("{_target_: ExponentialLR, gamma: -1}", "scheduler: the learning rate becomes -"),
        (
            "{_target_: OneCycleLR, max_lr: 0.1, total_steps: 4}",
            r"scheduler\.total_steps: the app sets",
        ),
        ("{_target_: ReduceLROnPlateau}", "scheduler: .* use scheduler=plateau"),
        ("{_target_: SequentialLR}", r"scheduler\.schedulers is required"),
        ("{_target_: LRScheduler}", "scheduler: LRScheduler is a base class"),
    ],
)
def test_wrong_schedule_is_reported_with_its_key(build: Any, scheduler: str, expected: str) -> None:
    node = scheduler.replace("_target_: ", f"_target_: {TORCH_SCHEDULES}.")
    with pytest.raises(ConfigError, match=expected):
        build(f"scheduler={node}")
