"""Each ends in one clear message before training starts, with exit code 2 and no run folder."""

from pathlib import Path
from typing import Any

import pytest

ROW = '{"image": "0.png", "suffix": "7"}\n'


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def malformed_row(root: Path) -> None:
    append(root / "train/annotations.jsonl", '{"image": "0.png", "suffix": 7}\n{"image"\n')


def unknown_key(root: Path) -> None:
    append(root / "train/annotations.jsonl", '{"image": "0.png", "suffix": "7", "lable": "7"}\n')


def missing_image(root: Path) -> None:
    (root / "valid/1.png").unlink()


def truncated_image(root: Path) -> None:
    data = (root / "valid/1.png").read_bytes()
    (root / "valid/1.png").write_bytes(data[: len(data) // 2])


def path_that_leaves_the_root(root: Path) -> None:
    (root.parent / "other.png").write_bytes((root / "train/0.png").read_bytes())
    append(root / "train/annotations.jsonl", '{"image": "../../other.png", "suffix": "7"}\n')


def empty_split(root: Path) -> None:
    (root / "valid/annotations.jsonl").write_text("")


def unseen_label(root: Path) -> None:
    append(root / "valid/annotations.jsonl", '{"image": "0.png", "suffix": "99"}\n')


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (malformed_row, ["train/annotations.jsonl:7: suffix is the number 7", "annotations.jsonl:8: not valid JSON"]),
        (unknown_key, ["train/annotations.jsonl:7: unknown key 'lable'", "correct or remove"]),
        (missing_image, ["valid/annotations.jsonl:2: image '1.png' does not exist"]),
        (truncated_image, ["valid/annotations.jsonl:2: valid/1.png: image bytes: not a whole", "Replace the files"]),
        (path_that_leaves_the_root, ["train/annotations.jsonl:7: image '../../other.png' leaves the data root"]),
        (empty_split, ["valid: the split is empty"]),
        (unseen_label, ["valid/annotations.jsonl:3: label '99'", "Classes come from train alone"]),
    ],
)
def test_bad_data_is_named_by_file_and_line(run_app: Any, data_root: Path, damage: Any, expected: list[str]) -> None:
    damage(data_root)
    code, message = run_app("data=jsonl", f"data.root={data_root}")
    assert code == 2
    assert "DataError: " in message
    assert "Traceback" not in message
    for part in expected:
        assert part in message
    assert not (data_root.parent / "runs").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean 'max_epochs'?"),
        ("trianer.max_epochs=3", "trianer.max_epochs: unknown key; did you mean 'trainer.max_epochs'?"),
        ("sed=3", "sed: unknown key; did you mean 'seed'?"),
        ("data.batch_sise=3", "data.batch_sise: unknown key"),
        ("trainer.gradient_clip_val=1", "write +trainer.gradient_clip_val=VALUE"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: Trainer takes no 'max_epoch'; did you mean 'max_epochs'?"),
        ("+data.batch_sise=3", "data.batch_sise: DataModuleConfig takes no 'batch_sise'; did you mean 'batch_size'?"),
        ("+monitor.metrics=valid_loss", "monitor.metrics: unknown key; did you mean 'metric'?"),
        ("+surprise=1", "surprise: unknown key"),
        ("monitor.metric=valid_f1", "monitor.metric: 'valid_f1' is not logged; did you mean 'valid_top1'?"),
        ("monitor.mode=maximum", "monitor.mode: Input should be 'max' or 'min', got 'maximum'"),
        ("model=resnet19", "Could not find 'model/resnet19'"),
        ("model.name=resnet81", "model: unknown backbone 'resnet81'; did you mean 'resnet18'"),
        ("+data.batch_size=0", "data.batch_size: Input should be greater than or equal to 1, got 0"),
        ("preprocessing.size=[0,64]", "preprocessing.size.0: Input should be greater than or equal to 1, got 0"),
        ("+model.num_classes=5", "model.num_classes is 5, but the training split has 2 classes"),
        ("run.name=../up", "run.name: String should match pattern"),
        ("~callbacks.best_and_last", "0 of them are cls_callbacks.BestAndLast; exactly one is needed"),
        ("model.weights=nowhere.pth", "weights 'nowhere.pth': no such file"),
        ("seed=one", "seed: Input should be a valid integer"),
    ],
)
def test_a_bad_setting_is_named_by_its_key_path(run_app: Any, data_root: Path, override: str, expected: str) -> None:
    code, message = run_app("data=jsonl", f"data.root={data_root}", override)
    assert code == 2
    assert "Traceback" not in message
    assert expected in message
    assert not (data_root.parent / "runs").exists()


def test_a_data_root_that_was_not_given_is_asked_for(run_app: Any, tmp_path: Path) -> None:
    code, message = run_app("data=jsonl")
    assert code == 2
    assert "data.root has no value; give it one on the command line: data.root=VALUE" in message
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_said_before_the_data_is_read(run_app: Any, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, message = run_app("trainer=gpu")
    assert code == 2
    assert "trainer: " in message
    assert "gpu" in message.lower()
    assert list(tmp_path.iterdir()) == []
