"""`uv run apps/train`: see cls_train."""

from pathlib import Path

from cls_train.main import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "conf")
