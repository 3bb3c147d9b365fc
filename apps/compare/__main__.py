"""The command `uv run apps/compare`."""

from cls_report.commands import compare_runs

if __name__ == "__main__":
    compare_runs()
