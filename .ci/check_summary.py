"""Did the README's first command reach what it promises? Usage: python check_summary.py RUN_FOLDER."""

import json
import sys
from pathlib import Path

summary = json.loads((Path(sys.argv[1]) / "summary.json").read_text())
top1 = summary["evaluation"]["metrics"]["test"]["test_top1"]
assert top1 >= 0.95, f"test top-1 is {top1:.2%}, promised are 95 %"
print(f"test top-1 {top1:.2%}, fit {summary['fit_seconds']:.0f} s")
