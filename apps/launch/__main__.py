"""The command `uv run apps/launch`."""

import sys
from pathlib import Path

from cls_launch.main import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[2]))
