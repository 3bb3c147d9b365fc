"""`uv run apps/compare RUN_A RUN_B`: see cls_report."""

from cls_report.commands import compare_runs

if __name__ == "__main__":
    compare_runs()
