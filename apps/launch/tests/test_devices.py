"""A job pays for exactly the GPUs that its trainer uses."""

from typing import Any

import pytest

from cls_launch.devices import check_devices
from cls_launch.errors import LaunchError
from cls_launch.targets.target import Resources

GPU = {"accelerator": "gpu"}


@pytest.mark.parametrize(
    ("gpus", "trainer", "advice"),
    [
        (4, {**GPU, "devices": 1}, "set resources.gpus=1 before --, or trainer=ddp after it"),
        (1, {**GPU, "devices": 4}, "set resources.gpus=4 before --, or trainer.devices=1 after"),
        (2, {**GPU, "devices": [0, 3]}, "set resources.gpus=4 before --"),
        (2, {**GPU, "devices": [1]}, "set resources.gpus=1 before --"),
        (2, {"accelerator": "auto", "devices": 1}, "set resources.gpus=1 before --"),
        (2, {"devices": 3}, "set resources.gpus=3 before --"),
        (1, {"accelerator": "cpu"}, "set trainer=gpu after --, or resources.gpus=0 before it"),
        (0, GPU, "set trainer=cpu after --, or resources.gpus=1 before it"),
        (0, {"accelerator": "cuda"}, "trainer.accelerator is cuda, and the job has no GPU"),
        (2, {**GPU, "num_nodes": 2}, "trainer.num_nodes=2: a job runs on one machine"),
    ],
)
def test_other_devices_are_refused(gpus: int, trainer: dict[str, Any], advice: str) -> None:
    with pytest.raises(LaunchError) as caught:
        check_devices(trainer, Resources(gpus=gpus))
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "trainer"),
    [
        (1, {**GPU, "devices": 1}),
        (4, {**GPU, "devices": "auto"}),
        (4, {**GPU, "devices": None}),
        (4, {**GPU, "devices": -1}),
        (4, {**GPU, "devices": 4, "num_nodes": 1}),
        (2, {**GPU, "devices": [0, 1]}),
        (1, {}),
        (0, {"accelerator": "cpu", "devices": 2}),
        (0, {}),
    ],
)
def test_the_devices_of_the_job_are_accepted(gpus: int, trainer: dict[str, Any]) -> None:
    check_devices(trainer, Resources(gpus=gpus))
