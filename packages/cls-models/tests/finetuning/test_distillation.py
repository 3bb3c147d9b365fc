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

from cls_models import ClassificationModule
from cls_models.finetuning.distillation import (
    Distillation,
    DistillationError,
    distillation_from_run,
    distillation_loss,
    load_teacher,
)

CLASSES = ("1", "23", "7")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZE = (8, 6)


class Network(nn.Module):
    """A small network whose norm and dropout answer otherwise in training."""

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
    """A run's folder with a teacher; its loss is weighted, so that not every key in the checkpoint is the network's."""
    torch.manual_seed(3)
    module = ClassificationModule(
        Network(3),
        3,
        nn.CrossEntropyLoss(weight=torch.ones(3)),
        functools.partial(torch.optim.SGD, lr=0.1),
    )
    module(images_of(16))  # the norm has seen something
    folder = tmp_path / "teacher"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(
        {"state_dict": module.state_dict(), "epoch": 3}, folder / "checkpoints" / "best.ckpt"
    )
    mapping = {
        "class_to_idx": {name: index for index, name in enumerate(CLASSES)},
        "normalization": {"mean": MEAN, "std": STD},
        "preprocessing": {"size": SIZE, "resize": "squash"},
    }
    (folder / "labels_mapping.json").write_text(json.dumps(mapping))
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
def test_the_soft_part_is_its_formula_and_so_is_its_gradient(
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
def test_equal_answers_cost_nothing(seed: int, temperature: float, shift: float) -> None:
    logits = logits_of(seed, 3, 4)
    assert distillation_loss(logits + shift, logits, temperature).item() == pytest.approx(
        0, abs=1e-9
    )


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), hard=st.floats(0, 10))
@settings(deadline=None)
def test_hard_and_soft_part_are_mixed_by_the_share(seed: int, share: float, hard: float) -> None:
    torch.manual_seed(seed % 1000)
    teacher = Network(3)
    student = logits_of(seed, 4, 3).float()
    found = Distillation(teacher, 3.0, share)(images_of(), student, torch.tensor(hard))
    soft = distillation_loss(student, teacher(images_of()), 3.0)
    assert found.item() == pytest.approx(
        (1 - share) * hard + share * soft.item(), rel=1e-5, abs=1e-5
    )


def test_without_a_share_the_teacher_is_not_asked() -> None:
    class Unasked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError

    hard = torch.tensor(1.5)
    assert Distillation(Unasked(), share=0)(images_of(), torch.zeros(4, 3), hard) is hard


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    student = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 6e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-6e4, 6e4, 0.0], [0.0, 0.0, 6e4]], dtype=dtype)
    loss = distillation_loss(student, teacher, 4.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_the_teacher_does_not_learn_and_is_no_part_of_the_student() -> None:
    torch.manual_seed(0)
    teacher = Network(3)
    before = copy.deepcopy(teacher.state_dict())
    student = ClassificationModule(
        Network(3), 3, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.1)
    )
    keys, parameters = set(student.state_dict()), len(list(student.parameters()))
    student.distillation = Distillation(teacher)
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


def test_distillation_teaches(run: Path) -> None:
    """From the teacher alone, a student of the same kind comes to give its answers."""
    distillation = distillation_from_run(
        run, Network, CLASSES, MEAN, STD, temperature=2.0, share=1.0
    )
    torch.manual_seed(1)
    student, images = nn.Sequential(nn.Flatten(), nn.Linear(3 * 48, 3)), images_of(32)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    found = []
    for _ in range(60):
        loss = distillation(images, student(images), torch.tensor(0.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.05 * found[0]


def test_a_teacher_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(
        DistillationError, match=r"student gives logits \[4, 3\], the teacher \[4, 5\]"
    ):
        Distillation(Network(5))(images_of(), torch.zeros(4, 3), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"share": 1.2}, "share must be from 0 .* to 1 .*, got 1.2"),
        ({"share": -0.1}, "share must be from 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillationError, match=message):
        Distillation(Network(3), **settings)


@pytest.mark.parametrize("named", [".", "checkpoints/best.ckpt"])
def test_a_loaded_teacher_answers_as_the_run_did(run: Path, named: str) -> None:
    teacher = load_teacher(str(run / named), Network, CLASSES, MEAN, STD)
    assert torch.equal(teacher(images_of()), original(run)(images_of()))


def test_a_checkpoint_that_lies_beside_its_labels_is_found(run: Path) -> None:
    copied = run / "best.ckpt"
    copied.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    teacher = load_teacher(copied, Network, CLASSES, MEAN, STD)
    assert torch.equal(teacher(images_of()), original(run)(images_of()))


def test_loading_a_teacher_leaves_the_random_state_alone(run: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_teacher(run, Network, CLASSES, MEAN, STD)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("order", list(itertools.permutations(CLASSES)))
def test_classes_in_another_order_are_permuted(run: Path, order: tuple[str, ...]) -> None:
    found = load_teacher(run, Network, order, MEAN, STD)(images_of())
    expected = original(run)(images_of())
    for index, name in enumerate(order):
        assert torch.equal(found[:, index], expected[:, CLASSES.index(name)])


def test_the_teacher_sees_the_students_images_as_it_knows_them(run: Path) -> None:
    """Normalised by its own mean and std, whatever the student's are."""
    pixels = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))

    def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    mean, std = (0.1, 0.9, 0.5), (1.0, 0.5, 0.1)
    found = load_teacher(run, Network, CLASSES, mean, std)(normalized(mean, std))
    assert torch.allclose(found, original(run)(normalized(MEAN, STD)), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 12), (4, 3), (6, 8)])
def test_the_teacher_sees_images_of_its_own_size(run: Path, size: tuple[int, int]) -> None:
    images = torch.ones(2, 3, *size) * torch.tensor([[1.0], [-2.0]])[:, :, None, None]
    expected = torch.ones(2, 3, *SIZE) * torch.tensor([[1.0], [-2.0]])[:, :, None, None]
    found = load_teacher(run, Network, CLASSES, MEAN, STD)(images)
    assert torch.allclose(found, original(run)(expected), atol=1e-5)


def test_another_set_of_classes_is_refused(run: Path) -> None:
    with pytest.raises(DistillationError) as caught:
        load_teacher(run, Network, ("1", "45", "7", "8"), MEAN, STD)
    message = str(caught.value)
    assert "the teacher knows 3 classes and the student 4" in message
    assert "2 of the student's are unknown to the teacher (such as ['45', '8'])" in message
    assert "1 of the teacher's to the student (such as ['23'])" in message


def test_weights_of_another_network_are_refused(run: Path) -> None:
    with pytest.raises(DistillationError, match="are of another network than the Network"):
        load_teacher(run, functools.partial(Network, hidden=6), CLASSES, MEAN, STD)


def test_a_run_without_a_checkpoint_is_refused(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(
        DistillationError, match=r"best.ckpt: no such checkpoint; name a run that has finished"
    ):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(run: Path, content: bytes) -> None:
    (run / "checkpoints" / "best.ckpt").write_bytes(content)
    with pytest.raises(DistillationError, match="not a readable checkpoint"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize(
    "content", [[1, 2], {"weights": 1}, {"state_dict": {"fc.weight": torch.zeros(1)}}]
)
def test_a_file_of_something_else_is_refused(run: Path, content: object) -> None:
    torch.save(content, run / "checkpoints" / "best.ckpt")
    with pytest.raises(
        DistillationError, match=r"holds no weights of a cls_models.ClassificationModule"
    ):
        load_teacher(run, Network, CLASSES, MEAN, STD)


def test_a_checkpoint_without_labels_is_refused(run: Path) -> None:
    (run / "labels_mapping.json").unlink()
    with pytest.raises(
        DistillationError, match=r"labels_mapping.json: cannot be read .* name a run's folder"
    ):
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
def test_a_damaged_labels_mapping_is_refused(run: Path, damage: dict[str, Any]) -> None:
    path = run / "labels_mapping.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(DistillationError, match=r"labels_mapping.json: not a run's labels mapping"):
        load_teacher(run, Network, CLASSES, MEAN, STD)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_labels_that_are_no_mapping_are_refused(run: Path, content: bytes) -> None:
    (run / "labels_mapping.json").write_bytes(content)
    with pytest.raises(DistillationError, match=r"labels_mapping.json: not a run's labels mapping"):
        load_teacher(run, Network, CLASSES, MEAN, STD)
