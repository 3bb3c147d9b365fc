"""The command `uv run apps/report`."""

import sys

from cls_report.commands import report

if __name__ == "__main__":
    sys.exit(report())
