"""Measure how long the threads of a CPU training step should spin while they wait for each other.

Command:  uv run python benchmarks/busy_machine.py    (about 4 minutes on two cores)
          uv run python benchmarks/busy_machine.py --spins default 0 1000 100000 --rounds 20
Expected: the spin count that `apps/train` sets is at most 2% slower than libgomp's default on an
          idle machine, and takes at most 60% of its time with other work on every core.

Threads of libgomp, PyTorch's OpenMP library on Linux, spin before they sleep. With other work on
the cores, a spinning thread takes the time that the thread it waits for needs. One process per spin
count trains the same network. The processes take turns, in an order that changes with each round,
and every round measures each of them with and without other work. Figures are medians over the
rounds of the ratio to the default within a round, with the quartiles.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time

import timing

from cls_train.process import SPIN_COUNT

WARM_UP_STEPS = 3
DEFAULT = "default"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spins", nargs="+", default=[DEFAULT, "0", str(SPIN_COUNT)])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8, help="training steps per measurement")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.batch)
        return
    if DEFAULT not in options.spins:
        parser.error(f"--spins needs {DEFAULT}, which the others are compared with")
    compare(options.spins, options.rounds, options.steps, options.batch)


def compare(spins: list[str], rounds: int, steps: int, batch: int) -> None:
    """Measure every spin count in every round, and print the medians."""
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, load average at the start {os.getloadavg()[0]:.1f}")
    workers = {spin: start_worker(spin, batch) for spin in spins}
    seconds: dict[tuple[str, bool], list[float]] = {}
    try:
        for worker in workers.values():
            measure(worker, WARM_UP_STEPS)
        for number in range(rounds):
            for is_busy in (False, True):
                order = random.Random(2 * number + is_busy).sample(spins, len(spins))
                others = start_other_work(cores) if is_busy else []
                for spin in order:
                    key = (spin, is_busy)
                    seconds.setdefault(key, []).append(measure(workers[spin], steps))
                stop(others)
    finally:
        stop(list(workers.values()))

    for is_busy in (False, True):
        print("\nwith other work on every core" if is_busy else "\nwithout other work")
        print("spin count  seconds/step  ratio to default (quartiles)")
        for spin in spins:
            print_row(spin, seconds[spin, is_busy], seconds[DEFAULT, is_busy])


def print_row(spin: str, own: list[float], default: list[float]) -> None:
    """Print the median step and the ratio to the default, which is paired by round."""
    ratios = [mine / other for mine, other in zip(own, default, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    step = statistics.median(own)
    print(f"{spin:>10}  {step:12.3f}  {middle:5.2f} ({low:.2f}-{high:.2f})")


def start_worker(spin: str, batch: int) -> "subprocess.Popen[str]":
    """Start a process that trains with a spin count."""
    environment = timing.environment_with_bytecode()
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    if spin != DEFAULT:
        environment["GOMP_SPINCOUNT"] = spin
    command = [sys.executable, __file__, "--worker", "--batch", str(batch)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def measure(worker: "subprocess.Popen[str]", steps: int) -> float:
    """Let a process take some steps, and return the seconds of one."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def start_other_work(cores: int) -> list["subprocess.Popen[str]"]:
    """Keep every core busy with one process that computes all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    return [subprocess.Popen(command, text=True) for _ in range(cores)]


def stop(processes: list["subprocess.Popen[str]"]) -> None:
    """End processes."""
    for process in processes:
        process.kill()
        process.wait()


def run_worker(batch: int) -> None:
    """Take as many training steps as each line of the input says, and print the time of one."""
    import torch
    from torch.nn import functional

    from cls_models import build_backbone, prepare_for_device

    torch.manual_seed(0)
    network = build_backbone("resnet18", num_classes=43, image_size=(48, 32))
    prepare_for_device(network, "cpu")
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.randn(batch, 3, 48, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(43, (batch,))

    for line in sys.stdin:
        steps = int(line)
        started = time.perf_counter()
        for _ in range(steps):
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print((time.perf_counter() - started) / steps, flush=True)


if __name__ == "__main__":
    main()
