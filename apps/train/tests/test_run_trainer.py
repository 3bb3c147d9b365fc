from pathlib import Path

from lightning.pytorch import Trainer

from cls_callbacks import RemoteMirror, RemotePushCallback, open_remote_folder
from cls_export.contract.run_layout import RunPaths
from cls_train.stages.run_trainer import describe_start


def test_a_stopped_run_says_where_the_same_command_starts(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    trainer = Trainer(logger=False, accelerator="cpu")
    assert describe_start(run, trainer) == "start from the beginning"

    mirror = RemoteMirror(run, open_remote_folder(str(tmp_path / "remote"), "run"))
    trainer.callbacks.append(RemotePushCallback(mirror))  # type: ignore[attr-defined]
    assert describe_start(run, trainer).startswith("resume from the last checkpoint in run.remote")

    run.last.parent.mkdir(parents=True)
    run.last.touch()
    assert describe_start(run, trainer) == f"resume from {run.last}"
