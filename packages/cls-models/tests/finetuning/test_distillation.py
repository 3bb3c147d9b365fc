import copy
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cls_export.contract.labels_mapping import LabelsMapping
from cls_export.contract.preprocessing import Preprocessing
from cls_models import ClassificationModule
from cls_models.finetuning.distillation import (
    DistillationError,
    DistillationLoss,
    build_distillation,
    distillation_loss,
    load_teacher,
)

CLASSES = ("1", "23", "7")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZE = (8, 6)


class Network(nn.Module):
    """A small network whose norm and dropout depend on the mode."""

    def __init__(self, num_classes: int, hidden: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3 * SIZE[0] * SIZE[1], hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.5)
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(images.flatten(1)))
        return logits


def logits_of(seed: int, count: int, classes: int) -> Tensor:
    return 4 * torch.randn(
        count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def images_of(count: int = 4, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a teacher; its weighted loss adds a key to the checkpoint."""
    torch.manual_seed(3)
    module = ClassificationModule(
        Network(3),
        3,
        nn.CrossEntropyLoss(weight=torch.ones(3)),
        functools.partial(torch.optim.SGD, lr=0.1),
    )
    module(images_of(16))  # updates the batch norm statistics
    folder = tmp_path / "teacher"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(
        {"state_dict": module.state_dict(), "epoch": 3}, folder / "checkpoints" / "best.ckpt"
    )
    class_to_idx = {name: index for index, name in enumerate(CLASSES)}
    preprocessing = Preprocessing(size=SIZE, mean=MEAN, std=STD)
    LabelsMapping.from_classes(class_to_idx, preprocessing).save(folder / "labels_mapping.json")
    return folder


def original(run: Path) -> Network:
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network = Network(3)
    network.load_state_dict(
        {key[9:]: value for key, value in state.items() if key.startswith("backbone.")}
    )
    return network.eval()


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 5),
    classes=st.integers(2, 6),
    temperature=st.floats(0.3, 20),
)
@settings(deadline=None)
def test_distillation_loss_and_gradient_follow_the_formula(
    seed: int, count: int, classes: int, temperature: float
) -> None:
    student, teacher = (
        logits_of(seed, count, classes).requires_grad_(),
        logits_of(seed + 1, count, classes),
    )
    loss = distillation_loss(student, teacher, temperature)
    p, q = ((logits.detach() / temperature).softmax(dim=1) for logits in (teacher, student))
    assert loss.item() == pytest.approx(
        temperature**2 * (p * (p / q).log()).sum().item() / count, abs=1e-9
    )
    loss.backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, temperature * (q - p) / count, atol=1e-12)


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.3, 20), shift=st.floats(-5, 5))
@settings(deadline=None)
def test_distillation_loss_is_zero_for_equal_predictions(
    seed: int, temperature: float, shift: float
) -> None:
    logits = logits_of(seed, 3, 4)
    assert distillation_loss(logits + shift, logits, temperature).item() == pytest.approx(
        0, abs=1e-9
    )


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), hard=st.floats(0, 10))
@settings(deadline=None)
def test_distillation_mixes_both_losses_by_share(seed: int, share: float, hard: float) -> None:
    torch.manual_seed(seed % 1000)
    teacher = Network(3)
    student = logits_of(seed, 4, 3).float()
    loss = DistillationLoss(teacher, 3.0, share)(images_of(), student, torch.tensor(hard))
    soft = distillation_loss(student, teacher(images_of()), 3.0)
    assert loss.item() == pytest.approx(
        (1 - share) * hard + share * soft.item(), rel=1e-5, abs=1e-5
    )


def test_teacher_does_not_run_when_share_is_zero() -> None:
    class Unused(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError

    hard = torch.tensor(1.5)
    assert DistillationLoss(Unused(), share=0)(images_of(), torch.zeros(4, 3), hard) is hard


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distillation_loss_is_finite_for_extreme_half_precision_logits(dtype: torch.dtype) -> None:
    student = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 6e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-6e4, 6e4, 0.0], [0.0, 0.0, 6e4]], dtype=dtype)
    loss = distillation_loss(student, teacher, 4.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_teacher_is_frozen_and_not_part_of_the_student() -> None:
    torch.manual_seed(0)
    teacher = Network(3)
    before = copy.deepcopy(teacher.state_dict())
    student = ClassificationModule(
        Network(3), 3, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.1)
    )
    keys, parameters = set(student.state_dict()), len(list(student.parameters()))
    student.distillation = DistillationLoss(teacher)
    assert set(student.state_dict()) == keys
    assert len(list(student.parameters())) == parameters
    student.train()
    logits = student(images_of())
    student.distillation(images_of(), logits, logits.sum()).backward()
    assert not teacher.training
    assert all(not module.training for module in teacher.modules())
    assert all(
        parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters()
    )
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_student_learns_the_predictions_of_the_teacher(run: Path) -> None:
    """A linear student is trained on the teacher's predictions only."""
    distillation = build_distillation(run, Network, CLASSES, MEAN, STD, temperature=2.0, share=1.0)
    torch.manual_seed(1)
    student, images = nn.Sequential(nn.Flatten(), nn.Linear(3 * 48, 3)), images_of(32)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = distillation(images, student(images), torch.tensor(0.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_distillation_rejects_another_number_of_classes() -> None:
    with pytest.raises(
        DistillationError, match=r"student's logits are \[4, 3\], the teacher's \[4, 5\]"
    ):
        DistillationLoss(Network(5))(images_of(), torch.zeros(4, 3), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"share": 1.2}, "share must be from 0 .* to 1 .*, got 1.2"),
        ({"share": -0.1}, "share must be from 0"),
    ],
)
def test_distillation_rejects_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillationError, match=message):
        DistillationLoss(Network(3), **settings)


@pytest.mark.parametrize("path", [".", "checkpoints/best.ckpt"])
def test_load_teacher_returns_the_logits_of_the_run(run: Path, path: str) -> None:
    teacher = load_teacher(str(run / path), Network, CLASSES, MEAN, STD)
    assert torch.equal(teacher(images_of()), original(run)(images_of()))


def test_load_teacher_accepts_a_checkpoint_next_to_its_labels(run: Path) -> None:
    copied = run / "best.ckpt"
    copied.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    teacher = load_teacher(copied, Network, CLASSES, MEAN, STD)
    assert torch.equal(teacher(images_of()), original(run)(images_of()))


def test_load_teacher_keeps_the_random_state(run: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_teacher(run, Network, CLASSES, MEAN, STD)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("order", list(itertools.permutations(CLASSES)))
def test_load_teacher_permutes_logits_to_the_class_order_of_the_student(
    run: Path, order: tuple[str, ...]
) -> None:
    logits = load_teacher(run, Network, order, MEAN, STD)(images_of())
    expected = original(run)(images_of())
    for index, name in enumerate(order):
        assert torch.equal(logits[:, index], expected[:, CLASSES.index(name)])


def test_teacher_gets_images_with_its_own_normalization(run: Path) -> None:
    """The normalization of the student does not matter."""
    pixels = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    mean, std = (0.1, 0.9, 0.5), (1.0, 0.5, 0.1)
    logits = load_teacher(run, Network, CLASSES, mean, std)(normalized(mean, std))
    assert torch.allclose(logits, original(run)(normalized(MEAN, STD)), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 12), (4, 3), (6, 8)])
def test_teacher_gets_images_of_its_own_size(run: Path, size: tuple[int, int]) -> None:
    images = torch.ones(2, 3, *size) * torch.tensor([[1.0], [-2.0]])[:, :, None, None]
    expected = torch.ones(2, 3, *SIZE) * torch.tensor([[1.0], [-2.0]])[:, :, None, None]
    logits = load_teacher(run, Network, CLASSES, MEAN, STD)(images)
    assert torch.allclose(logits, original(run)(expected), atol=1e-5)


def test_load_teacher_rejects_other_classes(run: Path) -> None:
    with pytest.raises(DistillationError) as error:
        load_teacher(run, Network, ("1", "45", "7", "8"), MEAN, STD)
    message = str(error.value)
    assert "the teacher has 3 classes and the student 4" in message
    assert "2 are missing in the teacher (such as ['45', '8'])" in message
    assert "1 are only in the teacher (such as ['23'])" in message


def test_load_teacher_rejects_weights_of_another_network(run: Path) -> None:
    with pytest.raises(DistillationError, match="its weights do not fit the Network"):
        load_teacher(run, functools.partial(Network, hidden=6), CLASSES, MEAN, STD)


def test_load_teacher_rejects_a_run_without_a_checkpoint(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(
        DistillationError,
        match=r"best.ckpt: no such checkpoint; use a run that has finished an epoch",
    ):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_load_teacher_rejects_a_damaged_checkpoint(run: Path, content: bytes) -> None:
    (run / "checkpoints" / "best.ckpt").write_bytes(content)
    with pytest.raises(DistillationError, match="not a readable PyTorch file"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize(
    "content", [[1, 2], {"weights": 1}, {"state_dict": {"fc.weight": torch.zeros(1)}}]
)
def test_load_teacher_rejects_other_files(run: Path, content: object) -> None:
    torch.save(content, run / "checkpoints" / "best.ckpt")
    with pytest.raises(DistillationError, match=r"best.ckpt: not a checkpoint of"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


def test_load_teacher_rejects_a_checkpoint_without_labels(run: Path) -> None:
    (run / "labels_mapping.json").unlink()
    with pytest.raises(DistillationError, match=r"labels_mapping.json: cannot be read"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize(
    "damage",
    [
        {"class_to_idx": {"1": 1}},
        {"class_to_idx": ["1"]},
        {"class_to_idx": None},
        {"normalization": {"mean": [0.5], "std": [1.0]}},
        {"normalization": {"mean": [0, 0, 0]}},
        {"preprocessing": {"size": 8}},
        {"preprocessing": {}},
    ],
)
def test_load_teacher_rejects_a_damaged_labels_mapping(run: Path, damage: dict[str, Any]) -> None:
    path = run / "labels_mapping.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(DistillationError, match=r"labels_mapping.json is not a labels mapping"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_load_teacher_rejects_a_file_that_is_not_a_mapping(run: Path, content: bytes) -> None:
    (run / "labels_mapping.json").write_bytes(content)
    with pytest.raises(DistillationError, match=r"labels_mapping.json is not a labels mapping"):
        load_teacher(run, Network, CLASSES, MEAN, STD)
