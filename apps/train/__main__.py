"""The command `uv run apps/train`."""

import sys
from pathlib import Path

from cls_train.stages import evaluation_process

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"

if __name__ == "__main__":
    evaluation_process.start_early(sys.argv[1:])  # before the imports that take several seconds
    from cls_train.main import main

    main(CONFIG_DIR)
