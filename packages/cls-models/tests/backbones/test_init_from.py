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
    """A run's folder, whose checkpoint also holds a loss's weights, as that of a ClassificationModule does."""
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
    built = network(len(OLD))
    built(torch.randn(8, 3, 5, 5))  # the norm has seen something
    return built


@pytest.fixture
def run(trained: nn.Sequential, tmp_path: Path) -> Path:
    return write_run(tmp_path / "first", trained)


NAMES = st.lists(st.sampled_from(["", "0", "00", "1", "10", "Ä", "dog"]), min_size=1, unique=True)


@settings(deadline=None, max_examples=40)
@given(old=NAMES, new=NAMES)
def test_every_row_follows_its_class(old: list[str], new: list[str]) -> None:
    before, after = network(len(old)), network(len(new))
    random = {key: value.clone() for key, value in after[4].state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        remapped = load_by_class_name(after, str(write_run(Path(folder) / "run", before, old)), new)
    assert sorted(remapped.kept + remapped.new) == sorted(new)
    assert sorted(remapped.kept + remapped.dropped) == sorted(old)
    for key, value in after[4].state_dict().items():
        for row, name in enumerate(new):
            assert torch.equal(
                value[row],
                before[4].state_dict()[key][old.index(name)] if name in old else random[key][row],
            )


def test_the_same_classes_give_the_same_answers(trained: nn.Sequential, run: Path) -> None:
    again = network(len(OLD))
    remapped = load_by_class_name(again, str(run), OLD)
    images = torch.randn(4, 3, 5, 5)
    assert torch.equal(again.eval()(images), trained.eval()(images))
    assert (remapped.kept, remapped.new, remapped.dropped) == (OLD, (), ())
    assert remapped.checkpoint == run / "checkpoints" / "best.ckpt"


def test_the_summary_counts_and_names(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        remapped = load_by_class_name(network(3), str(run), ("1", "7", "8"))
    assert "2 of 3 classes keep their rows of the head" in remapped.summary
    assert "1 are new and start at random ('8'), 2 are gone ('', '23')" in remapped.summary
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", remapped.summary)
    ]


def test_no_shared_class_is_a_warning(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_by_class_name(network(2), str(run), ("cat", "dog")).kept == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no class name is shared" in caplog.text


@pytest.mark.parametrize("place", ["checkpoints/best.ckpt", "beside.ckpt"])
def test_a_checkpoint_inside_the_run_does(run: Path, place: str) -> None:
    if place == "beside.ckpt":
        (run / "checkpoints" / "best.ckpt").rename(run / place)
    assert load_by_class_name(network(4), str(run / place), OLD).kept == OLD


def test_a_convolution_may_be_the_head(tmp_path: Path) -> None:
    before, after = (
        get_model("squeezenet1_1", weights=None, num_classes=count) for count in (3, 2)
    )
    load_by_class_name(
        after, str(write_run(tmp_path / "run", before, ("a", "b", "c"))), ("c", "new")
    )
    assert torch.equal(after.classifier[1].weight[0], before.classifier[1].weight[2])
    assert torch.equal(after.features[0].weight, before.features[0].weight)


def test_mnasnet_gets_the_version_that_it_asks_for(tmp_path: Path) -> None:
    before, after = (get_model("mnasnet0_5", weights=None, num_classes=count) for count in (3, 2))
    assert load_by_class_name(
        after, str(write_run(tmp_path / "run", before, "abc")), "ca"
    ).kept == ("c", "a")
    assert torch.equal(after.classifier[1].bias, before.classifier[1].bias[[2, 0]])


@pytest.mark.parametrize("given", ["export", "export/model.onnx"])
def test_a_bundle_inside_its_run_gives_the_runs_weights(run: Path, given: str) -> None:
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_bytes(b"")
    write_mapping(run / "export" / "labels_mapping.json", OLD)
    remapped = load_by_class_name(network(4), str(run / given), OLD)
    assert remapped.checkpoint == run / "checkpoints" / "best.ckpt"


def test_a_bundle_from_before_its_run_went_on_is_refused(
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
        match=r"exported from step 20, but .*best.ckpt is now of step 30; .*give .*run$",
    ):
        load_by_class_name(network(4), str(run / "export"), OLD)


def test_a_lone_bundle_names_the_run_to_use_instead(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    write_mapping(tmp_path / "labels_mapping.json", OLD, provenance={"run": "jersey-7"})
    with pytest.raises(
        BackboneError, match=r"cannot start from a bundle alone.*Give the folder of run 'jersey-7'"
    ):
        load_by_class_name(network(4), str(tmp_path), OLD)


def test_an_onnx_file_does_not_hold_the_trained_weights(tmp_path: Path) -> None:
    """The reason for the refusal above; should this fail one day, bundles could be read after all."""
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


def test_another_architecture_is_refused_by_name_and_changes_nothing(run: Path) -> None:
    (run / "config.yaml").write_text(
        "run:\n  name: first\nmodel:\n  _target_: cls_models.build_backbone\n  name: resnet34\n"
    )
    wider = network(4, width=6)
    before = {key: value.clone() for key, value in wider.state_dict().items()}
    expected = r"comes from model resnet34 and does not fit this Sequential: 0 tensors missing, 0 unknown, 7 of another"
    with pytest.raises(BackboneError, match=expected):
        load_by_class_name(wider, str(run), OLD)
    assert unchanged(wider, before)
    deeper = nn.Sequential(*network(4)[:3], nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(BackboneError, match=r"4 tensors missing, 2 unknown.*3.bias not there"):
        load_by_class_name(deeper, str(run), OLD)


def test_class_names_must_fit_the_head(run: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"head of this backbone has 4 rows.*there are 3, 3 of them distinct"
    ):
        load_by_class_name(network(4), str(run), ("a", "b", "c"))
    with pytest.raises(BackboneError, match="there are 4, 3 of them distinct"):
        load_by_class_name(network(4), str(run), ("a", "b", "c", "c"))
    write_mapping(run / "labels_mapping.json", ("a", "b"))
    with pytest.raises(BackboneError, match=r"best.ckpt has 4 rows.*there are 2"):
        load_by_class_name(network(4), str(run), OLD)


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"no such run; expected a run's folder, a .ckpt in it, or its export/"
    ):
        load_by_class_name(network(4), str(tmp_path / "nowhere"), OLD)
    with pytest.raises(BackboneError, match=r"labels_mapping.json is missing"):
        load_by_class_name(network(4), str(tmp_path), OLD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "lone.ckpt").write_bytes(b"")
    with pytest.raises(
        BackboneError, match=r"neither its folder nor the one above holds labels_mapping.json"
    ):
        load_by_class_name(network(4), str(tmp_path / "a" / "b" / "lone.ckpt"), OLD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a readable checkpoint"),
        ([1, 2], "holds no state_dict"),
        ({"fc.weight": torch.ones(2)}, "holds no state_dict"),
        ({"state_dict": {"fc.weight": torch.ones(2)}}, "no tensor under 'backbone.'"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_named(run: Path, content: Any, message: str) -> None:
    path = run / "checkpoints" / "best.ckpt"
    path.write_bytes(b"damaged") if content is None else torch.save(content, path)
    with pytest.raises(BackboneError, match=message):
        load_by_class_name(network(4), str(run), OLD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable labels mapping"),
        ("[]", "expected a JSON object"),
        ("{}", "class_to_idx must give each class"),
        ('{"class_to_idx": {"a": 0, "b": 2}}', "class_to_idx must give each class"),
        ('{"class_to_idx": {"a": true, "b": 0}}', "class_to_idx must give each class"),
    ],
)
def test_a_damaged_mapping_is_named(run: Path, text: str, message: str) -> None:
    (run / "labels_mapping.json").write_text(text)
    with pytest.raises(BackboneError, match=message):
        load_by_class_name(network(4), str(run), OLD)
