"""The command `uv run apps/train`."""

import sys
from pathlib import Path

from cls_train.main import main
from cls_train.process import run_and_exit, shorten_spinning

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"

if __name__ == "__main__":
    shorten_spinning()
    run_and_exit(lambda: sys.exit(main(CONFIG_DIR)))
