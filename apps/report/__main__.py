"""`uv run apps/report RUN`: see cls_report."""

from cls_report.commands import report

if __name__ == "__main__":
    report()
