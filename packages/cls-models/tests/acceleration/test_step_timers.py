import pytest
import torch

from cls_models.acceleration import step_timers
from cls_models.acceleration.step_timers import DeviceStepTimer, StepTimer


def test_step_timer_separates_the_first_step_from_the_median(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 30.0, 30.1, 30.2, 90.0, 90.1])
    monkeypatch.setattr(step_timers.time, "perf_counter", lambda: next(times))
    timer = StepTimer()
    timer.tick()
    assert timer.seconds is None
    timer.tick()
    assert timer.first_step_overhead is None
    for _ in range(2):
        timer.tick()
    timer.pause()  # validation
    for _ in range(2):
        timer.tick()
    assert timer.seconds == pytest.approx(0.1)
    assert timer.first_step_overhead == pytest.approx(29.9)


def test_device_step_timer_measures_from_the_first_tick_to_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 10.4, 50.0, 50.2])
    monkeypatch.setattr(step_timers.time, "perf_counter", lambda: next(times))
    timer = DeviceStepTimer(torch.device("cpu"))
    timer.tick()
    assert timer.seconds is None
    for _ in range(2):
        timer.tick()
    timer.pause()  # validation
    assert timer.seconds == pytest.approx(0.2)
    timer.pause()
    for _ in range(2):
        timer.tick()
    timer.pause()
    assert timer.seconds == pytest.approx(0.6 / 3)
