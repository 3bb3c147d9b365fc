"""Compare thread settings of the runtime, alone and next to a busy core.

Command:  uv run python benchmarks/export_threads.py            (about 6 minutes on two cores)
Expected: a table; the classifier's setting is as fast as onnxruntime's default on an idle
          machine, and faster when another process keeps half of the cores busy.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from export_model import write_random_bundle

ROUNDS = 5
SECONDS_PER_ROUND = 1.0

PROGRAM = """
import json, statistics, sys, time
import numpy as np, onnxruntime as ort
from cls_export import Classifier
bundle, setting = sys.argv[1], json.loads(sys.argv[2])
batch, seconds = int(sys.argv[3]), float(sys.argv[4])
if setting is None:
    session = Classifier(bundle)._session
else:
    options = ort.SessionOptions()
    options.intra_op_num_threads = setting.pop("threads", 0)
    for name, value in setting.items():
        options.add_session_config_entry("session.intra_op." + name, value)
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(bundle + "/model.onnx", options, providers=providers)
images = np.zeros((batch, *session.get_inputs()[0].shape[1:]), np.float32)
times, end = [], time.perf_counter() + seconds
while len(times) < 6 or time.perf_counter() < end:
    started = time.perf_counter()
    session.run(["logits"], {"images": images})
    times.append(time.perf_counter() - started)
print(1000 * statistics.median(times[1:]) / batch)
"""

SETTINGS: dict[str, dict[str, object] | None] = {
    "cls_export.Classifier": None,
    "onnxruntime's default": {},
    "spin for 1 ms": {"spin_duration_us": "1000"},
    "spin for 0.1 ms": {"spin_duration_us": "100"},
    "no spinning": {"allow_spinning": "0"},
    "one thread": {"threads": 1},
}


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'pixels':<10}{'batch':>6}  {'threads':<24}{'idle, ms':>10}{'busy, ms':>10}")
        for size in (64, 224):
            bundle, _ = write_random_bundle(Path(folder), size)
            for batch in (1, 8):
                compare_settings(bundle, size, batch)


def compare_settings(bundle: Path, size: int, batch: int) -> None:
    """Print milliseconds per image for each setting, in rounds of turns."""
    idle: dict[str, list[float]] = {name: [] for name in SETTINGS}
    busy: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        for name, setting in SETTINGS.items():
            idle[name].append(run_program(bundle, setting, batch))
            spinning = start_busy_processes()
            try:
                busy[name].append(run_program(bundle, setting, batch))
            finally:
                stop_processes(spinning)
    for name in SETTINGS:
        print(
            f"{f'{size}x{size}':<10}{batch:>6}  {name:<24}"
            f"{statistics.median(idle[name]):>10.2f}{statistics.median(busy[name]):>10.2f}",
            flush=True,
        )


def run_program(bundle: Path, setting: dict[str, object] | None, batch: int) -> float:
    """Return the milliseconds per image that a new process measures."""
    arguments = [str(bundle), json.dumps(setting), str(batch), str(SECONDS_PER_ROUND)]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def start_busy_processes() -> list["subprocess.Popen[bytes]"]:
    """Start processes that keep half of the cores busy."""
    count = max(1, (os.cpu_count() or 2) // 2)
    command = [sys.executable, "-c", "while True: pass"]
    return [subprocess.Popen(command) for _ in range(count)]


def stop_processes(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Stop processes and wait for them."""
    for process in processes:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
