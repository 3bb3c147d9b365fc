"""Timers for training steps."""

import statistics
import time

import torch


class StepTimer:
    """Measure the median duration of training steps, and the overhead of the first one.

    Call `tick` once before the first step and once after every step. A GPU works asynchronously,
    but the host waits when the launch queue is full, so the median over many steps is right there
    too.
    """

    def __init__(self) -> None:
        self._durations: list[float] = []
        self._last_tick: float | None = None

    def tick(self) -> None:
        """Record the end of a step, or the start of timing."""
        now = time.perf_counter()
        if self._last_tick is not None:
            self._durations.append(now - self._last_tick)
        self._last_tick = now

    def pause(self) -> None:
        """Stop timing until the next tick, for example during validation."""
        self._last_tick = None

    @property
    def seconds(self) -> float | None:
        """Median duration of the steps after the first, in seconds; None before the third tick."""
        if len(self._durations) < 2:
            return None
        later_steps = self._durations[1:]
        return statistics.median(later_steps)

    @property
    def first_step_overhead(self) -> float | None:
        """First step's duration minus the median in seconds, such as the compilation time."""
        median = self.seconds
        if median is None:
            return None
        return self._durations[0] - median


class DeviceStepTimer:
    """Measure the mean duration of training steps on a device that works asynchronously.

    Call `tick` once after every step, and `pause` before other work. Timing synchronizes with the
    device only at the first tick after a pause and at the pause. The first step after a pause is
    not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._total_seconds = 0.0
        self._total_steps = 0
        self._start: float | None = None
        self._steps_since_start = 0

    def tick(self) -> None:
        """Count a step."""
        if self._start is None:
            self._start = self._synchronized_time()
            self._steps_since_start = 0
        else:
            self._steps_since_start += 1

    def pause(self) -> None:
        """Stop timing until the next tick."""
        if self._start is not None and self._steps_since_start:
            self._total_seconds += self._synchronized_time() - self._start
            self._total_steps += self._steps_since_start
        self._start = None

    @property
    def seconds(self) -> float | None:
        """Mean step duration up to the latest pause, in seconds; None if no step was counted."""
        if not self._total_steps:
            return None
        return self._total_seconds / self._total_steps

    def _synchronized_time(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
