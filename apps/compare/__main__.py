"""The command `uv run apps/compare`."""

import sys

from cls_report.commands import compare_runs

if __name__ == "__main__":
    sys.exit(compare_runs())
