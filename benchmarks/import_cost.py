"""Measure what `import cls_export` costs, compared to importing PyTorch.

Command:  uv run python benchmarks/import_cost.py
Expected: a table; cls_export takes under 0.5 s and 100 MB.

Each import runs in a new process with bytecode files. The figures are medians of five rounds in
turn. Memory is the largest resident set of the process.
"""

import statistics
import subprocess
import sys

from timing import environment_with_bytecode

ROUNDS = 5
CASES = {
    "python alone": "pass",
    "cls_export": "import cls_export; cls_export.Classifier",
    "torch + torchvision": "import torch, torchvision",
}
CODE = """
import time
started = time.perf_counter()
{statement}
seconds = time.perf_counter() - started
import resource
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure(statement: str) -> tuple[float, float]:
    """Return the seconds and megabytes of one import in a new process."""
    output = subprocess.run(
        [sys.executable, "-c", CODE.format(statement=statement)],
        check=True,
        capture_output=True,
        text=True,
        env=environment_with_bytecode(),
    ).stdout
    seconds, megabytes = output.split()
    return float(seconds), float(megabytes)


def main() -> None:
    """Measure and print a table."""
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    megabytes: dict[str, list[float]] = {name: [] for name in CASES}
    for round_number in range(ROUNDS + 1):
        for name, statement in CASES.items():
            duration, memory = measure(statement)
            if round_number > 0:  # the first round writes the bytecode
                seconds[name].append(duration)
                megabytes[name].append(memory)
    base_seconds = statistics.median(seconds["cls_export"])
    base_megabytes = statistics.median(megabytes["cls_export"])
    print(f"{'import':<22}{'seconds':>9}{'MB':>8}{'x time':>9}{'x memory':>10}")
    for name in CASES:
        duration = statistics.median(seconds[name])
        memory = statistics.median(megabytes[name])
        print(
            f"{name:<22}{duration:>9.2f}{memory:>8.0f}"
            f"{duration / base_seconds:>9.1f}{memory / base_megabytes:>10.1f}"
        )


if __name__ == "__main__":
    main()
