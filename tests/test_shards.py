"""Train from shards, in a folder and on a web server; stop, kill, and resume the run."""

import functools
import http.server
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked_app import start
from rank_processes import RankProcesses
from tiny_network import TINY_NETWORK

from cls_data import SyntheticNumbers
from cls_data.shards import index
from cls_data.shards.writing import write_shards
from cls_export import Preprocessing

pytestmark = pytest.mark.slow

SETTINGS = (
    "debug=tiny",
    "data=jsonl",
    "trainer.max_epochs=4",
    "monitor.metric=valid_loss",
    "monitor.mode=min",
    "++data.batch_size=16",
    "data.shard_window=2",
    "preprocessing.mean=[0.5,0.5,0.5]",
    "preprocessing.std=[0.25,0.25,0.25]",
    "callbacks.grad_cam=null",
    "callbacks.best_and_last.every_n_steps=3",
    "stages.report=false",
)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges of files, which the one of the standard library does not."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        stated = self.headers.get("Range", "")
        start, _, end = stated.removeprefix("bytes=").partition("-")
        if stated:
            content = content[int(start) : int(end) + 1]
        self.send_response(206 if stated else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a data root without its training images, and the folder of their shards."""
    folder = tmp_path_factory.mktemp("sharded")
    root = folder / "numbers"
    SyntheticNumbers(classes=("0", "7", "23"), train=150, valid=8, test=8).write(root)
    decoder = Preprocessing(size=(40, 40), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_BLOCK_BYTES", 1)  # blocks of 128 rows
        write_shards(root, str(folder / "shards"), decoder)
    for path in (root / "train").rglob("*"):
        if path.is_file() and path.suffix != ".jsonl":
            path.unlink()
    return root, folder / "shards"


@pytest.fixture(scope="module")
def server(sharded: tuple[Path, Path]) -> Iterator[str]:
    handler = functools.partial(RangeHandler, directory=str(sharded[1]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_run_from_shards_that_is_stopped_and_killed_ends_like_an_uninterrupted_one(
    sharded: tuple[Path, Path], server: str, tmp_path: Path
) -> None:
    def start_run(name: str, url: str | Path) -> ForkServerProcess:
        settings = (
            *TINY_NETWORK,
            *SETTINGS,
            f"data.root={sharded[0]}",
            f"data.shards={url}",
            f"data.shard_cache={tmp_path / 'cache'}",
            f"run.root={tmp_path}",
            f"run.name={name}",
        )
        return start(settings, tmp_path / f"{name}.txt")

    def finish(name: str, url: str | Path) -> None:
        process = start_run(name, url)
        process.join(180)
        assert process.exitcode == 0, (tmp_path / f"{name}.txt").read_text()

    finish("whole", sharded[1])
    stopped = tmp_path / "stopped"
    for epochs, number in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
        process = start_run("stopped", server)
        while count_epochs(stopped) < epochs:
            assert process.is_alive(), "the run ended before it could be stopped"
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode in (143, -signal.SIGKILL)
        shutil.rmtree(tmp_path / "cache")  # as on a fresh machine
    finish("stopped", server)

    assert (stopped / "train.log").read_text().count("resuming from") == 2
    for name in ("last", "best"):
        one = torch.load(stopped / f"checkpoints/{name}.ckpt", weights_only=True)
        other = torch.load(tmp_path / f"whole/checkpoints/{name}.ckpt", weights_only=True)
        for key, value in other["state_dict"].items():
            assert torch.equal(one["state_dict"][key], value), (name, key)
    with (
        np.load(stopped / "predictions/test.npz") as one,
        np.load(tmp_path / "whole/predictions/test.npz") as other,
    ):
        assert np.array_equal(one["logits"], other["logits"])
    assert (stopped / "export/model.onnx").exists()


def count_epochs(run: Path) -> int:
    try:
        lines = (run / "metrics.csv").read_text().splitlines()
    except FileNotFoundError:
        return 0
    position = lines[0].split(",").index("valid_loss")
    return sum(1 for line in lines[1:] if line.split(",")[position])


def test_a_run_from_shards_resumes_with_another_number_of_processes(
    sharded: tuple[Path, Path], tmp_path: Path
) -> None:
    fault = "{_target_: rank_faults.RankFault, hook: on_train_batch_end, rank: 0, fault: SIGTERM}"

    def run(name: str, count: int) -> list[int]:
        settings = (
            *SETTINGS,
            "allow_targets=rank_faults",
            "model=torchvision",
            "model.name=squeezenet1_1",  # has no batch normalization
            "model.dropout=0",
            "optimizer=sgd",  # AdamW magnifies the rounding of tiny gradients
            "++data.batch_size=18",
            "trainer.max_epochs=1",
            "trainer.strategy=ddp",
            "stages.evaluate=false",
            f"data.root={sharded[0]}",
            f"data.shards={sharded[1]}",
            f"data.shard_cache={tmp_path / 'cache'}",
            f"run.root={tmp_path}",
            f"run.name={name}",
            *((f"+callbacks.fault={fault}",) if name == "moved" else ()),
        )
        return RankProcesses(settings, tmp_path / name, count).wait(180)

    assert run("whole", 1) == [0]
    assert run("moved", 2) == [143, 143]
    assert run("moved", 3) == [0, 0, 0]
    one, other = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("moved", "whole")
    )
    assert one["global_step"] == other["global_step"]
    for key, value in other["state_dict"].items():
        torch.testing.assert_close(one["state_dict"][key], value, rtol=0, atol=1e-5)
