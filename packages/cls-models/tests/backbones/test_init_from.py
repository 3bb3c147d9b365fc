import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import get_model

from cls_models.backbones.heads import BackboneError
from cls_models.backbones.init_from import load_by_class_name

OLD = ("", "1", "23", "7")


def network(classes: int, width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def write_mapping(path: Path, classes: Sequence[str], **others: Any) -> None:
    path.write_text(
        json.dumps({"class_to_idx": {name: row for row, name in enumerate(classes)}, **others})
    )


def write_run(
    folder: Path, backbone: nn.Module, classes: Sequence[str] = OLD, **others: Any
) -> Path:
    """Write a run folder; like a ClassificationModule's, its checkpoint also has loss weights."""
    (folder / "checkpoints").mkdir(parents=True)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    torch.save(
        {"state_dict": {**state, "loss.weight": torch.ones(3)}, **others},
        folder / "checkpoints" / "best.ckpt",
    )
    write_mapping(folder / "labels_mapping.json", classes, provenance={"run": folder.name})
    return folder


@pytest.fixture
def trained() -> nn.Sequential:
    torch.manual_seed(1)
    module = network(len(OLD))
    module(torch.randn(8, 3, 5, 5))  # updates the batch norm statistics
    return module


@pytest.fixture
def run(trained: nn.Sequential, tmp_path: Path) -> Path:
    return write_run(tmp_path / "first", trained)


NAMES = st.lists(st.sampled_from(["", "0", "00", "1", "10", "Ä", "dog"]), min_size=1, unique=True)


@settings(deadline=None, max_examples=40)
@given(old=NAMES, new=NAMES)
def test_load_by_class_name_copies_each_row_to_its_class(old: list[str], new: list[str]) -> None:
    before, after = network(len(old)), network(len(new))
    initial = {key: value.clone() for key, value in after[4].state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        result = load_by_class_name(after, str(write_run(Path(folder) / "run", before, old)), new)
    assert sorted(result.shared + result.added) == sorted(new)
    assert sorted(result.shared + result.removed) == sorted(old)
    for key, value in after[4].state_dict().items():
        for row, name in enumerate(new):
            expected = initial[key][row]
            if name in old:
                expected = before[4].state_dict()[key][old.index(name)]
            assert torch.equal(value[row], expected)


def test_load_by_class_name_keeps_logits_when_classes_are_equal(
    trained: nn.Sequential, run: Path
) -> None:
    again = network(len(OLD))
    result = load_by_class_name(again, str(run), OLD)
    images = torch.randn(4, 3, 5, 5)
    assert torch.equal(again.eval()(images), trained.eval()(images))
    assert (result.shared, result.added, result.removed) == (OLD, (), ())
    assert result.checkpoint == run / "checkpoints" / "best.ckpt"


def test_summary_counts_and_lists_classes(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = load_by_class_name(network(3), str(run), ("1", "7", "8"))
    assert "copied head rows of 2 of 3 classes" in result.summary
    assert (
        "1 new classes start from random rows ('8'), 2 classes were removed ('', '23')"
        in result.summary
    )
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", result.summary)
    ]


def test_load_by_class_name_warns_when_no_class_is_shared(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_by_class_name(network(2), str(run), ("cat", "dog")).shared == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no class name is shared" in caplog.text


@pytest.mark.parametrize("location", ["checkpoints/best.ckpt", "other.ckpt"])
def test_load_by_class_name_accepts_a_checkpoint_inside_the_run(run: Path, location: str) -> None:
    if location == "other.ckpt":
        (run / "checkpoints" / "best.ckpt").rename(run / location)
    assert load_by_class_name(network(4), str(run / location), OLD).shared == OLD


def test_load_by_class_name_supports_a_convolution_head(tmp_path: Path) -> None:
    before, after = (
        get_model("squeezenet1_1", weights=None, num_classes=count) for count in (3, 2)
    )
    load_by_class_name(
        after, str(write_run(tmp_path / "run", before, ("a", "b", "c"))), ("c", "new")
    )
    assert torch.equal(after.classifier[1].weight[0], before.classifier[1].weight[2])
    assert torch.equal(after.features[0].weight, before.features[0].weight)


def test_load_by_class_name_keeps_the_version_of_mnasnet(tmp_path: Path) -> None:
    before, after = (get_model("mnasnet0_5", weights=None, num_classes=count) for count in (3, 2))
    result = load_by_class_name(after, str(write_run(tmp_path / "run", before, "abc")), "ca")
    assert result.shared == ("c", "a")
    assert torch.equal(after.classifier[1].bias, before.classifier[1].bias[[2, 0]])


@pytest.mark.parametrize("given", ["export", "export/model.onnx"])
def test_load_by_class_name_reads_the_run_of_a_bundle(run: Path, given: str) -> None:
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_bytes(b"")
    write_mapping(run / "export" / "labels_mapping.json", OLD)
    result = load_by_class_name(network(4), str(run / given), OLD)
    assert result.checkpoint == run / "checkpoints" / "best.ckpt"


def test_load_by_class_name_rejects_a_bundle_older_than_the_best_checkpoint(
    trained: nn.Sequential, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", trained, scored={"step": 30})
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_bytes(b"")
    write_mapping(
        run / "export" / "labels_mapping.json",
        OLD,
        provenance={"run": "run", "metric": {"step": 20}},
    )
    with pytest.raises(
        BackboneError,
        match=r"exported from step 20, but .*best.ckpt is from step 30; .*give .*run$",
    ):
        load_by_class_name(network(4), str(run / "export"), OLD)


def test_load_by_class_name_rejects_a_lone_bundle_and_names_its_run(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    write_mapping(tmp_path / "labels_mapping.json", OLD, provenance={"run": "jersey-7"})
    with pytest.raises(
        BackboneError, match=r"cannot start from a bundle alone.*Give the folder of run 'jersey-7'"
    ):
        load_by_class_name(network(4), str(tmp_path), OLD)


def test_onnx_file_does_not_contain_the_trained_weights(tmp_path: Path) -> None:
    """The reason for the test above; if this fails one day, bundles can be supported."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    trained = network(3).eval()
    nn.init.uniform_(trained[1].weight, 0.5, 2)
    torch.onnx.export(
        trained, (torch.zeros(2, 3, 5, 5),), tmp_path / "m.onnx", dynamo=True, verbose=False
    )
    tensors = {
        item.name: onnx.numpy_helper.to_array(item)
        for item in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    assert "1.weight" not in tensors
    assert not torch.equal(torch.tensor(tensors["0.weight"]), trained[0].weight)


def unchanged(backbone: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_load_by_class_name_rejects_another_architecture_and_changes_nothing(run: Path) -> None:
    wider = network(4, width=6)
    before = {key: value.clone() for key, value in wider.state_dict().items()}
    expected = (
        r"best.ckpt does not fit this Sequential: "
        r"0 tensors missing, 0 unknown, 7 of another"
    )
    with pytest.raises(BackboneError, match=expected):
        load_by_class_name(wider, str(run), OLD)
    assert unchanged(wider, before)
    deeper = nn.Sequential(*network(4)[:3], nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(
        BackboneError, match=r"4 tensors missing, 2 unknown.*3.bias is missing in the run"
    ):
        load_by_class_name(deeper, str(run), OLD)


def test_load_by_class_name_rejects_class_names_that_do_not_fit_the_head(run: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"head of this backbone has 4 rows.*got 3 names, 3 of them distinct"
    ):
        load_by_class_name(network(4), str(run), ("a", "b", "c"))
    with pytest.raises(BackboneError, match="got 4 names, 3 of them distinct"):
        load_by_class_name(network(4), str(run), ("a", "b", "c", "c"))
    write_mapping(run / "labels_mapping.json", ("a", "b"))
    with pytest.raises(BackboneError, match=r"best.ckpt has 4 rows.*got 2 names"):
        load_by_class_name(network(4), str(run), OLD)


def test_load_by_class_name_rejects_folders_that_are_not_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"no such run; expected a run folder, a .ckpt in it, or its export/"
    ):
        load_by_class_name(network(4), str(tmp_path / "nowhere"), OLD)
    with pytest.raises(BackboneError, match=r"labels_mapping.json is missing"):
        load_by_class_name(network(4), str(tmp_path), OLD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "lone.ckpt").write_bytes(b"")
    with pytest.raises(
        BackboneError, match=r"neither its folder nor the parent folder has labels_mapping.json"
    ):
        load_by_class_name(network(4), str(tmp_path / "a" / "b" / "lone.ckpt"), OLD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a readable PyTorch file"),
        ([1, 2], "it has no state_dict"),
        ({"fc.weight": torch.ones(2)}, "it has no state_dict"),
        ({"state_dict": {"fc.weight": torch.ones(2)}}, "no tensor that starts with 'backbone.'"),
    ],
)
def test_load_by_class_name_rejects_damaged_and_foreign_checkpoints(
    run: Path, content: Any, message: str
) -> None:
    path = run / "checkpoints" / "best.ckpt"
    path.write_bytes(b"damaged") if content is None else torch.save(content, path)
    with pytest.raises(BackboneError, match=message):
        load_by_class_name(network(4), str(run), OLD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable labels mapping"),
        ("[]", "expected a JSON object"),
        ("{}", "class_to_idx must map the class names"),
        ('{"class_to_idx": {"a": 0, "b": 2}}', "class_to_idx must map the class names"),
        ('{"class_to_idx": {"a": true, "b": 0}}', "class_to_idx must map the class names"),
    ],
)
def test_load_by_class_name_rejects_a_damaged_labels_mapping(
    run: Path, text: str, message: str
) -> None:
    (run / "labels_mapping.json").write_text(text)
    with pytest.raises(BackboneError, match=message):
        load_by_class_name(network(4), str(run), OLD)
