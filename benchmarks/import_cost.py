"""What `import cls_export` costs a consumer, beside what the same would cost through PyTorch.

Command:  uv run python benchmarks/import_cost.py
Expected: a table; cls_export under 0.5 s and 100 MB. Ratios hold within one run on one machine.

Each import happens in a process of its own, with compiled bytecode; medians of five, taken in turn so that a busy
moment of the machine hits all alike. Memory is the process's largest resident set.
"""

import os
import statistics
import subprocess
import sys

ROUNDS = 5
CASES = {
    "python alone": "pass",
    "cls_export": "import cls_export",
    "torch + torchvision": "import torch, torchvision",
}
CODE = """
import time; started = time.perf_counter()
{statement}
import resource; print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure(statement: str) -> tuple[float, float]:
    """Return seconds and megabytes of one import in a fresh process."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    command = [sys.executable, "-c", CODE.format(statement=statement)]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    seconds, megabytes = map(float, output.split())
    return seconds, megabytes


def main() -> None:
    """Measure and print."""
    for statement in CASES.values():
        measure(statement)  # writes the bytecode
    rounds = [
        {name: measure(statement) for name, statement in CASES.items()} for _ in range(ROUNDS)
    ]
    medians = {
        name: tuple(statistics.median(results[name][part] for results in rounds) for part in (0, 1))
        for name in CASES
    }
    base = medians["cls_export"]
    print(f"{'import':<22}{'seconds':>9}{'MB':>8}{'x time':>9}{'x memory':>10}")
    for name, (seconds, megabytes) in medians.items():
        print(
            f"{name:<22}{seconds:>9.2f}{megabytes:>8.0f}{seconds / base[0]:>9.1f}{megabytes / base[1]:>10.1f}"
        )


if __name__ == "__main__":
    main()
