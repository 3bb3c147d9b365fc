import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from cls_callbacks import AtomicCheckpointIO
from cls_export import LabelsMapping, Provenance
from cls_train.composition.builders import build_preprocessing
from cls_train.errors import RunError
from cls_train.run_folder import RunFolder, load_checkpoint


@pytest.fixture
def config(composed: Any, tmp_path: Path) -> Any:
    return composed(f"run.root={tmp_path}", "run.name=one")


def mapping(config: Any, *classes: str, fingerprint: str = "a") -> LabelsMapping:
    indices = {name: index for index, name in enumerate(classes)}
    return LabelsMapping.from_classes(
        indices, build_preprocessing(config), Provenance(data_fingerprint=fingerprint)
    )


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


def test_only_a_run_of_the_same_model_is_gone_on_with_and_its_stem_is_known(
    config: Any, composed: Any, tmp_path: Path
) -> None:
    def asked(*overrides: str) -> Any:
        return composed(f"run.root={tmp_path}", "run.name=one", *overrides)

    assert RunFolder.named(config, "m").interrupted(config) is None, "there is no such run yet"
    recorded = asked("model.weights=w.pth", "+model.stem=small")
    folder = interrupted(recorded)
    assert folder.interrupted(asked("model.weights=w.pth")) == recorded
    assert folder.interrupted(asked("model.weights=w.pth", "+model.stem=small")) == recorded
    for other in (
        ["model.weights=w.pth", "+model.stem=standard"],
        ["model.weights=v.pth"],
        ["model=resnet34"],
    ):
        assert folder.interrupted(asked(*other)) is None


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
    with pytest.raises(
        RunError, match=r"cannot go on as asked(.|\n)*-   lr: 0.001(.|\n)*\+   lr: 0.5"
    ):
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


def test_two_unnamed_runs_of_one_second_do_not_share_a_folder(
    composed: Any, tmp_path: Path
) -> None:
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


HOLDS = """
import sys, time
from pathlib import Path
from cls_train.run_folder import RunFolder, load_checkpoint
RunFolder(Path(sys.argv[1]))._take()
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_process(config: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that trains the run."""
    folder = interrupted(config)
    folder.release()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.faults
def test_a_run_that_another_process_trains_is_refused_and_the_process_named(
    config: Any, other_process: subprocess.Popen[str]
) -> None:
    folder = RunFolder.named(config, "m")
    for refuses in (
        folder.refuse_if_taken,
        lambda: folder.begin(config, mapping(config, "1", "2")),
    ):
        with pytest.raises(
            RunError, match=f"'one' is being trained by process {other_process.pid} on .*, since 20"
        ):
            refuses()


@pytest.mark.faults
def test_the_lock_of_a_dead_process_is_taken_over(
    config: Any, other_process: subprocess.Popen[str]
) -> None:
    other_process.kill()
    other_process.wait()
    folder = RunFolder.named(config, "m")
    folder.refuse_if_taken()
    assert folder.begin(config, mapping(config, "1", "2")) == folder.last
    assert json.loads(folder.owner.read_bytes())["process"] == os.getpid()
    folder.release()


@pytest.mark.faults
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_with_a_message(config: Any) -> None:
    folder, lines = interrupted(config), []
    for path, step in ((folder.previous, 1), (folder.last, 2)):
        AtomicCheckpointIO().save_checkpoint({"step": step}, path)
    assert folder.sound_checkpoint() == folder.last
    folder.last.write_bytes(folder.last.read_bytes()[:-1] + b"x")
    sink = logger.add(lines.append, format="{level}: {message}")
    assert folder.sound_checkpoint() == folder.previous
    logger.remove(sink)
    assert re.search(
        r"WARNING: .*last.ckpt: its bytes are not .*; going on from previous.ckpt", str(lines[0])
    )
    AtomicCheckpointIO().save_checkpoint({"step": 3}, folder.last.with_name("next.ckpt"))
    assert folder.sound_checkpoint().name == "next.ckpt", "the process died between two renames"
    folder.last.with_name("next.ckpt").unlink()
    folder.previous.unlink()
    with pytest.raises(RunError, match=r"last.ckpt: its bytes are not those that were written"):
        folder.sound_checkpoint()


class Payload:
    """Pickled, it makes a file as soon as somebody reads it back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.faults
@pytest.mark.parametrize("hides_in", ["state_dict", "config", "the whole"])
def test_a_checkpoint_with_a_pickled_payload_runs_nothing(tmp_path: Path, hides_in: str) -> None:
    made, path = tmp_path / "made", tmp_path / "best.ckpt"
    payload = Payload(made)
    torch.save(
        payload if hides_in == "the whole" else {"state_dict": {}, hides_in: {"weight": payload}},
        path,
    )
    with pytest.raises(RunError, match=r"best.ckpt: not a readable checkpoint"):
        load_checkpoint(path)
    assert not made.exists()
