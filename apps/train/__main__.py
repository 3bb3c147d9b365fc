"""The command `uv run apps/train`."""

import sys
from pathlib import Path

from cls_train.process import paused_garbage_collection, run_and_exit
from cls_train.stages import evaluation_process

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"


def _run() -> None:
    evaluation_process.start_early(sys.argv[1:])
    with paused_garbage_collection():
        from cls_train.main import main

    main(CONFIG_DIR)


if __name__ == "__main__":
    run_and_exit(_run)
