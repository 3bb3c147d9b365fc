from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from cls_models.acceleration.compile_cost import COMPILE_COSTS, CompileCost, decide_compilation


@given(st.integers(0, 10**6), st.floats(1e-4, 10), st.floats(0, 600), st.floats(0.5, 3))
def test_decision_is_to_compile_exactly_if_training_gets_shorter(
    steps: int, step: float, seconds: float, speedup: float
) -> None:
    with patch.dict(COMPILE_COSTS, {"cpu": CompileCost(seconds, speedup)}):
        decision = decide_compilation("cpu", 224, steps, step)
    eager = steps * step
    compiled = eager / speedup + seconds
    if abs(compiled - eager) > 1e-6 * (1 + eager):
        assert decision.should_compile == (compiled < eager)


def test_decision_gives_the_reason_against_compiling_a_short_run() -> None:
    decision = decide_compilation("cuda", 224, steps=1000, step_seconds=0.1)
    assert not decision.should_compile
    assert decision.reason == (
        "not compiling: it takes about 60 s and saves about 17 s over 1,000 steps of 0.1 s "
        "(assumed speedup 1.20)"
    )


def test_decision_is_to_compile_a_long_run() -> None:
    assert decide_compilation("cuda", 224, steps=10_000, step_seconds=0.1).should_compile


def test_decision_is_not_to_compile_for_small_images_on_a_cpu() -> None:
    small = decide_compilation("cpu", 64, steps=10**6, step_seconds=1)
    assert not small.should_compile
    assert "images of 64 px are below 128 px" in small.reason
    assert decide_compilation("cpu", 128, steps=10**6, step_seconds=1).should_compile


def test_decision_is_not_to_compile_on_an_unknown_device() -> None:
    decision = decide_compilation("mps", 224, steps=10**6, step_seconds=1)
    assert decision.reason == "not compiling: the gain on mps is unknown"
