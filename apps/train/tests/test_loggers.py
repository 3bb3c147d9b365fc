"""Each logger is closed exactly once, after the evaluation, however the run ends."""

import functools
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import Logger

from cls_train.builders.loggers import build_loggers, close_loggers, closing_loggers, open_loggers
from cls_train.errors import ConfigError

closed: list[tuple[str, str]] = []
"""Folder and status of each logger that was closed."""


class FileLogger(Logger):
    """Writes to a file that stays open until `finalize`, like many loggers of users."""

    def __init__(self, save_dir: str, fails: str = "") -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._fails = fails
        self._stream: Any = None

    @property
    def name(self) -> str:
        return "file"

    @property
    def version(self) -> int:
        return 0

    @property
    def experiment(self) -> Any:
        if self._fails == "open":
            raise ConnectionRefusedError("no network")
        if self._fails == "key":
            raise ValueError("no API key")
        if self._stream is None:
            self._stream = (self._folder / "metrics.txt").open("w")
        return self._stream

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.experiment.write(f"{metrics}\n")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to log."""

    def finalize(self, status: str) -> None:
        closed.append((self._folder.name, status))
        if self._fails == "close":
            raise RuntimeError("the server is gone")
        self.experiment.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    closed.clear()
    return tmp_path


def build(folder: Path, **arguments: Any) -> list[Logger]:
    node = {"_target_": f"{__name__}.FileLogger", **arguments}
    return build_loggers({"own": node, "off": None}, folder)


def fit(folder: Path, loggers: list[Logger], *, fails: bool = False) -> None:
    model = BoringModel()
    if fails:
        model.training_step = functools.partial(_raise_error)  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=1,
        log_every_n_steps=1,
        logger=loggers,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model)


def _raise_error(*args: Any) -> None:
    raise KeyError("a fault")


def test_logger_stays_open_for_the_results_of_the_evaluation(folder: Path) -> None:
    loggers = build(folder)
    fit(folder, loggers)
    assert closed == []
    loggers[0].log_metrics({"best_valid_top1": 1.0}, 2)
    close_loggers(loggers, "success")
    assert closed == [(folder.name, "success")]
    assert "best_valid_top1" in (folder / "metrics.txt").read_text()


def test_logger_is_closed_once_after_an_error(folder: Path) -> None:
    loggers = build(folder)
    with pytest.raises(KeyError), closing_loggers(loggers):
        fit(folder, loggers, fails=True)
    close_loggers(loggers, "success")
    assert closed == [(folder.name, "failed")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_logger_is_closed_as_failed_by_any_exception(
    folder: Path, error: type[BaseException]
) -> None:
    loggers = build(folder)
    with pytest.raises(error), closing_loggers(loggers):
        raise error
    assert closed == [(folder.name, "failed")]


def test_loggers_of_successive_runs_are_separate(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        loggers = build(folder / name)
        with closing_loggers(loggers):
            loggers[0].log_metrics({name: 1}, 0)
    assert closed == [("one", "success"), ("two", "success")]
    assert (folder / "two/metrics.txt").read_text() == "{'two': 1}\n"


@pytest.mark.parametrize(("fails", "cause"), [("key", "no API key"), ("open", "no network")])
def test_logger_that_cannot_start_is_reported(folder: Path, fails: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=f"logger: FileLogger cannot start: {cause}"):
        open_loggers(build(folder, fails=fails))


def test_error_while_closing_does_not_end_the_run(folder: Path) -> None:
    broken, working = build(folder, fails="close"), build(folder)
    close_loggers([*broken, *working], "success")
    assert len(closed) == 2


def test_each_wandb_run_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("one", "two"):
        (folder / name).mkdir()
        node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "project": "cls"}
        loggers = build_loggers({"wandb": node}, folder / name)
        with closing_loggers(loggers):
            open_loggers(loggers)
            loggers[0].log_metrics({"x": 1.0}, 0)
        assert wandb.run is None
        assert len(list(folder.glob(f"{name}/wandb/offline-run-*"))) == 1
