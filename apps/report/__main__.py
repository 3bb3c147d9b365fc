"""The command `uv run apps/report`."""

from cls_report.commands import report

if __name__ == "__main__":
    report()
