import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import get_model

from cls_models import build_backbone, hardware
from cls_models.acceleration.hardware import (
    CompileCost,
    DeviceClock,
    HardwareError,
    StepClock,
    channels_last_pays,
    check_batch_size_for_batch_norm,
    check_precision,
    compile_in_place,
    decide_compilation,
    precision_for,
    prepare_for_device,
)


@pytest.mark.parametrize("device", ["cpu", "mps", torch.device("cpu")])
def test_devices_without_fast_half_precision_get_float32(device: torch.device | str) -> None:
    assert precision_for(device) == "32-true"


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), "32-true"),
        ((7, 0), "16-mixed"),
        ((7, 5), "16-mixed"),
        ((8, 0), "bf16-mixed"),
        ((8, 9), "bf16-mixed"),
        ((12, 0), "bf16-mixed"),
    ],
)
def test_cuda_gets_what_its_tensor_cores_compute_in(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision_for("cuda") == precision
    assert check_precision("auto", "cuda") == precision
    assert check_precision("16-mixed", "cuda") == "16-mixed"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", "32-true"),
        (32, "32-true"),
        ("32", "32-true"),
        ("32-true", "32-true"),
        ("bf16-mixed", "bf16-mixed"),
    ],
)
def test_what_a_cpu_can_train_in_is_resolved(given: str | int, meant: str) -> None:
    assert check_precision(given, "cpu") == meant


@pytest.mark.parametrize("given", [16, "16", "16-mixed"])
def test_float16_on_a_cpu_is_refused(given: str | int) -> None:
    with pytest.raises(
        HardwareError, match=f"precision {given} was asked for on a CPU.*set it to auto or 32-true"
    ):
        check_precision(given, "cpu")


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(
        HardwareError, match="unknown precision 'bf16mixed'; did you mean 'bf16-mixed'"
    ):
        check_precision("bf16mixed", "cpu")


def test_channels_last_pays_on_a_cpu_and_for_mixed_precision_on_cuda() -> None:
    assert channels_last_pays("cpu")
    assert channels_last_pays("cuda", "bf16-mixed")
    assert not channels_last_pays("cuda")
    assert not channels_last_pays("mps")


def test_a_network_prepared_for_a_cpu_gives_the_same_answers() -> None:
    torch.manual_seed(0)
    plain = build_backbone("resnet18", 5).eval()
    prepared = copy.deepcopy(plain)
    assert len(prepare_for_device(prepared, "cpu")) == 2
    assert prepared.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 48, 32)
    assert torch.allclose(prepared(images), plain(images), atol=1e-5)
    assert prepare_for_device(copy.deepcopy(plain), "cuda") == [], (
        "float32 on CUDA is left as it is"
    )


steps_of_training = st.integers(0, 10**6)
seconds_of_a_step = st.floats(1e-4, 10)


@given(steps_of_training, seconds_of_a_step, st.floats(0, 600), st.floats(0.5, 3))
def test_compilation_is_chosen_exactly_if_it_shortens_the_training(
    steps: int, step: float, seconds: float, speedup: float
) -> None:
    decision = decide_compilation("cpu", 64, steps, step, CompileCost(seconds, speedup))
    shorter = steps * step / speedup + seconds < steps * step
    if abs(steps * step / speedup + seconds - steps * step) > 1e-6 * (1 + steps * step):
        assert decision.compile == shorter


def test_a_short_run_is_not_compiled_and_hears_why() -> None:
    decision = decide_compilation("cuda", 224, steps=1000, step_seconds=0.1)
    assert not decision.compile
    assert decision.reason == (
        "not compiled: it takes about 60 s and saves about 17 s over 1,000 steps of 0.1 s (assumed speed-up 1.20)"
    )
    assert decide_compilation("cuda", 224, steps=10_000, step_seconds=0.1).compile


def test_small_images_on_a_cpu_and_unknown_devices_are_not_compiled() -> None:
    small = decide_compilation("cpu", 64, steps=10**6, step_seconds=1)
    assert (small.compile, "gains nothing below 128 px" in small.reason) == (False, True)
    assert decide_compilation("cpu", 128, steps=10**6, step_seconds=1).compile
    assert decide_compilation("mps", 224, steps=10**6, step_seconds=1).reason.endswith(
        "gains on mps"
    )


@pytest.mark.slow
def test_a_compiled_module_answers_as_before_under_the_same_names() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    images = torch.randn(2, 3, 6, 6)
    expected, keys = module(images), list(module.state_dict())
    try:
        compile_in_place(module, "cpu")
    except HardwareError as error:
        pytest.skip(str(error))
    module(images).sum().backward()
    torch.testing.assert_close(module(images), expected)
    assert list(module.state_dict()) == keys
    assert isinstance(module, nn.Sequential)
    torch.testing.assert_close(copy.deepcopy(module)(images), expected)


def test_a_missing_compiler_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    # Something else than what an earlier test left in inductor's cache.
    monkeypatch.setattr(hardware, "_probe", lambda x: (x.cos() * 3).tan() - 7)
    torch.compiler.reset()
    module = nn.Linear(2, 2)
    with (
        inductor.patch(
            {"cpp.cxx": (None, "no-such-compiler")}
        ),  # monkeypatch would leave it deleted
        pytest.raises(
            HardwareError, match=r"does not work on this machine.*needs a C\+\+ compiler \(g\+\+"
        ),
    ):
        compile_in_place(module, "cpu")
    assert inductor.cpp.cxx[1] != "no-such-compiler"
    assert module._compiled_call_impl is None


def test_the_clock_tells_the_first_step_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 30.0, 30.1, 30.2, 90.0, 90.1])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(times))
    clock = StepClock()
    clock.tick()
    assert clock.seconds is None
    clock.tick()
    assert clock.first_step_overhead is None
    for _ in range(2):
        clock.tick()
    clock.pause()  # a validation
    for _ in range(2):
        clock.tick()
    assert clock.seconds == pytest.approx(0.1)
    assert clock.first_step_overhead == pytest.approx(29.9)


def test_a_device_is_timed_from_the_first_steps_end_to_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 10.4, 50.0, 50.2])
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(times))
    clock = DeviceClock(torch.device("cpu"))
    clock.tick()
    assert clock.seconds is None
    for _ in range(2):
        clock.tick()
    clock.pause()  # a validation
    assert clock.seconds == pytest.approx(0.2)
    clock.pause()
    for _ in range(2):
        clock.tick()
    clock.pause()
    assert clock.seconds == pytest.approx(0.6 / 3)


def test_a_batch_of_one_is_refused_where_a_norm_would_see_one_value() -> None:
    module = get_model("resnet18", weights=None, num_classes=3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(torch.zeros(1, 3, 32, 32))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for rows, batch_size in ((1, 8), (9, 1)):
        with pytest.raises(
            HardwareError, match=r"batch_size \d, \d rows\).*layer4.0.bn1 .*at 32 x 32 px"
        ):
            check_batch_size_for_batch_norm(module, rows, batch_size, (32, 32))
    assert module.training
    assert not any(part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_larger_batches_larger_maps_and_frozen_norms_are_fine() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2)
    )
    module(torch.zeros(2, 3, 7, 7))
    check_batch_size_for_batch_norm(
        module, 9, 8, (3, 3)
    )  # the ninth row is dropped: a full batch went before
    check_batch_size_for_batch_norm(module, 1, 1, (7, 7))


class FrozenNorm(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


def test_a_norm_that_stays_in_evaluation_takes_a_batch_of_one() -> None:
    def with_norm(norm: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Flatten(), norm, nn.Linear(12, 2))

    check_batch_size_for_batch_norm(with_norm(FrozenNorm(12)), 1, 1, (2, 2))
    with pytest.raises(HardwareError, match="batch norm 1 would see"):
        check_batch_size_for_batch_norm(with_norm(nn.BatchNorm1d(12)), 1, 1, (2, 2))
