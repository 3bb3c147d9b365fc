"""The command of each process that `launch_app` starts: CONFIG_DIR, then the app's arguments."""

import sys
from pathlib import Path

from cls_train.main import main
from cls_train.process import run_and_exit, shorten_spinning

if __name__ == "__main__":
    shorten_spinning()
    config_dir = Path(sys.argv.pop(1))
    run_and_exit(lambda: sys.exit(main(config_dir)))
