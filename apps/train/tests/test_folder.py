from pathlib import Path
from typing import Any

import pytest

from cls_export import LabelsMapping, Provenance
from cls_train.errors import RunError
from cls_train.folder import RunFolder
from cls_train.parts import build_preprocessing


@pytest.fixture
def config(composed: Any, tmp_path: Path) -> Any:
    return composed(f"run.root={tmp_path}", "run.name=one")


def mapping(config: Any, *classes: str, fingerprint: str = "a") -> LabelsMapping:
    indices = {name: index for index, name in enumerate(classes)}
    return LabelsMapping.from_classes(indices, build_preprocessing(config), Provenance(data_fingerprint=fingerprint))


def interrupted(config: Any) -> RunFolder:
    folder = RunFolder.named(config, "m")
    assert folder.begin(config, mapping(config, "1", "2")) is None
    folder.last.parent.mkdir()
    folder.last.write_bytes(b"")
    return folder


def test_a_new_folder_holds_configuration_and_labels_before_the_first_step(config: Any) -> None:
    folder = RunFolder.named(config, "m")
    folder.begin(config, mapping(config, "1", "2"))
    assert folder.read_config() == config
    assert LabelsMapping.load(folder.labels).classes == ("1", "2")
    assert not folder.summary.exists()


def test_an_interrupted_run_goes_on_from_its_last_checkpoint(config: Any) -> None:
    folder = interrupted(config)
    folder.refuse_if_taken()
    assert folder.begin(config, mapping(config, "1", "2")) == folder.last


def test_an_interrupted_run_may_be_moved_and_finished_without_export(
    config: Any, composed: Any, tmp_path: Path
) -> None:
    folder = interrupted(config)
    moved = composed(f"run.root={tmp_path}", "run.name=one", "stages.export=false")
    assert folder.begin(moved, mapping(config, "1", "2")) == folder.last
    assert not folder.read_config().stages.export


def test_other_settings_are_refused_and_shown(config: Any, composed: Any, tmp_path: Path) -> None:
    folder = interrupted(config)
    other = composed(f"run.root={tmp_path}", "run.name=one", "optimizer.lr=0.5")
    with pytest.raises(RunError, match=r"cannot go on as asked(.|\n)*-   lr: 0.001(.|\n)*\+   lr: 0.5"):
        folder.begin(other, mapping(config, "1", "2"))


def test_other_classes_and_other_data_are_refused_and_said(config: Any) -> None:
    folder = interrupted(config)
    with pytest.raises(RunError, match=r"classes: \['2'\] are gone, \['3'\] are new"):
        folder.begin(config, mapping(config, "1", "3"))
    with pytest.raises(RunError, match="rows or images have changed"):
        folder.begin(config, mapping(config, "1", "2", fingerprint="b"))


def test_a_finished_run_is_not_run_again(config: Any) -> None:
    folder = interrupted(config)
    folder.write_json(folder.summary, {})
    with pytest.raises(RunError, match="'one' is finished"):
        folder.refuse_if_taken()


def test_a_folder_of_something_else_is_refused(config: Any, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run's folder"):
        RunFolder.named(config, "m").refuse_if_taken()


def test_runs_without_a_name_get_different_folders(composed: Any, tmp_path: Path) -> None:
    config = composed(f"run.root={tmp_path}", "seed=7")
    first = RunFolder.named(config, "resnet18")
    first.path.mkdir()
    second = RunFolder.named(config, "resnet18")
    assert first.path != second.path
    assert "resnet18-seed7" in first.path.name


def test_two_unnamed_runs_of_one_second_do_not_share_a_folder(composed: Any, tmp_path: Path) -> None:
    config = composed(f"run.root={tmp_path}")
    folder = RunFolder.named(config, "m")
    folder.begin(config, mapping(config, "1", "2"))
    with pytest.raises(RunError, match="made by another run this very second"):
        folder.begin(config, mapping(config, "1", "2"))


def test_a_damaged_configuration_is_named(config: Any) -> None:
    folder = interrupted(config)
    for text in ("a: [", "just text", "seed: 1\nsurprise: 2\n"):
        folder.config.write_text(text)
        with pytest.raises(RunError, match=r"config.yaml is damaged, or was edited"):
            folder.read_config()


def test_the_data_root_is_kept_as_an_absolute_path(composed: Any) -> None:
    assert Path(composed("data=jsonl", "data.root=mine").data["root"]).is_absolute()


def test_a_number_will_do_as_a_name(composed: Any) -> None:
    assert composed("run.name=2024").run.name == "2024"
