"""Check that a run of the README's first command reached its accuracy.

Usage: python check_summary.py RUN_FOLDER
"""

import json
import sys
from pathlib import Path

MIN_TOP1 = 0.95

summary = json.loads((Path(sys.argv[1]) / "summary.json").read_text())
top1 = summary["evaluation"]["metrics"]["test"]["test_top1"]
if top1 < MIN_TOP1:
    sys.exit(f"test top-1 is {top1:.2%}, expected at least {MIN_TOP1:.0%}")
print(f"test top-1 {top1:.2%}, fit {summary['fit_seconds']:.0f} s")
