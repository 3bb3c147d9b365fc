import pytest
import torch

from cls_models.acceleration.errors import HardwareError
from cls_models.acceleration.precision import check_precision, choose_precision


@pytest.mark.parametrize("device", ["cpu", "mps", torch.device("cpu")])
def test_choose_precision_returns_float32_without_cuda(device: torch.device | str) -> None:
    assert choose_precision(device) == "32-true"


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
def test_choose_precision_follows_compute_capability_on_cuda(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("cuda") == precision
    assert check_precision("auto", "cuda") == precision
    assert check_precision("16-mixed", "cuda") == "16-mixed"


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("auto", "32-true"),
        (32, "32-true"),
        ("32", "32-true"),
        ("32-true", "32-true"),
        ("bf16-mixed", "bf16-mixed"),
    ],
)
def test_check_precision_resolves_names_on_a_cpu(given: str | int, resolved: str) -> None:
    assert check_precision(given, "cpu") == resolved


@pytest.mark.parametrize("given", [16, "16", "16-mixed"])
def test_check_precision_rejects_float16_on_a_cpu(given: str | int) -> None:
    with pytest.raises(
        HardwareError, match=rf"precision {given} is not supported.*Use auto or 32-true"
    ):
        check_precision(given, "cpu")


def test_check_precision_suggests_the_closest_name() -> None:
    with pytest.raises(
        HardwareError, match="unknown precision 'bf16mixed'; did you mean 'bf16-mixed'"
    ):
        check_precision("bf16mixed", "cpu")
