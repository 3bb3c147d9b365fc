"""Print the timeline of a whole training command: from the first import to the exit.

Command:  uv run python benchmarks/timeline.py -- debug=tiny data=synthetic_tiny
          uv run python benchmarks/timeline.py --json timeline.json -- experiment=jersey_numbers ...
          uv run python benchmarks/timeline.py --trace trace.json -- trainer=gpu
Expected: one row a span with its start, wall and CPU seconds; the slowest packages to import; and
the figures at the end: the time to the first step, between epochs, and after the fit.

The arguments after -- are those of apps/train. Without run.root, the run is in a temporary folder.
Repeat the command and compare the smallest figures: the first run writes bytecode and reads files
that are not cached, and other programs on the machine take time.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timing import environment_with_bytecode

REPOSITORY = Path(__file__).resolve().parent.parent
PROBE = Path(__file__).resolve().parent / "timeline_probe"
STEP = "step"
FORWARD = "validation step"
SLOW_STEP = 2.0
"""A step that takes this many times the median is listed."""


@dataclass(frozen=True)
class Span:
    """A named interval of one thread.

    Attributes:
        name: What was done.
        start: Seconds since the command was started.
        end: As `start`.
        cpu: CPU seconds of all threads of the process meanwhile.
        depth: The number of spans around it.
        thread: Name of the thread.
    """

    name: str
    start: float
    end: float
    cpu: float
    depth: int
    thread: str = "MainThread"

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return self.end - self.start


@dataclass
class Process:
    """The recorded spans of one process. Times are seconds since the command was started.

    Attributes:
        name: Short name.
        start: When the process was started.
        ready: When the interpreter had started.
        end: When it exited; None if it was killed.
        cpu: CPU seconds; None if it was killed.
        megabytes: Largest resident memory; None if it was killed.
        spans: Ordered by start.
        imports: By module, the time at which its import ended, and its own wall seconds.
    """

    name: str
    start: float
    ready: float
    end: float | None = None
    cpu: float | None = None
    megabytes: float | None = None
    spans: list[Span] = field(default_factory=list)
    imports: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """The figures of a run, in seconds; None where it has no such part.

    Attributes:
        first_step: From the start of the command to the end of the first training step.
        before_first_step: From the start of the command to the start of the first training step.
        step: Median of the training steps after the first one.
        slowest_step: The slowest of them.
        between_epochs: Median time from the last step of an epoch to the first step of the next,
            without the forward passes of the validation.
        after_fit: From the end of the fit to the end of the command.
        whole: The whole command.
        cpu: CPU seconds of all processes that were not killed.
    """

    first_step: float | None
    before_first_step: float | None
    step: float | None
    slowest_step: float | None
    between_epochs: float | None
    after_fit: float | None
    whole: float
    cpu: float


def main() -> int:
    """Run the command, and print its timeline."""
    arguments, overrides = split_arguments(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all spans to a file")
    trace_help = "also write a trace of steps 21 to 30, by torch.profiler"
    parser.add_argument("--trace", type=Path, metavar="FILE", help=trace_help)
    parser.add_argument(
        "--shortest", type=float, default=0.05, metavar="SECONDS", help="hide shorter spans"
    )
    parser.add_argument("--packages", type=int, default=15, metavar="N", help="packages to list")
    options = parser.parse_args(arguments)

    code, seconds, processes = record(overrides, options.trace)
    figures = compute_figures(processes, seconds)
    print()
    print(format_timeline(processes, options.shortest))
    print(format_imports(processes, options.packages))
    print(format_figures(figures, processes))
    if options.trace is not None and not options.trace.exists():
        print(f"no {options.trace}: the run took too few training steps")
    if options.json is not None:
        content = {
            "command": overrides,
            "exit_code": code,
            "figures": asdict(figures),
            "processes": [asdict(process) for process in processes],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return code


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line at `--`."""
    if "--" not in arguments:
        return arguments, []
    position = arguments.index("--")
    return arguments[:position], arguments[position + 1 :]


def record(overrides: list[str], trace: Path | None = None) -> tuple[int, float, list[Process]]:
    """Run `apps/train`, and return its exit code, wall seconds, and recorded processes."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        records.mkdir()
        environment = environment_with_bytecode()
        paths = [str(PROBE), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment["CLS_TIMELINE"] = str(records)
        if trace is not None:
            environment["CLS_TIMELINE_TRACE"] = str(trace.resolve())
        if not any(override.startswith("run.root=") for override in overrides):
            overrides = [*overrides, f"run.root={folder}/runs"]

        started = time.monotonic()
        command = [sys.executable, str(REPOSITORY / "apps" / "train"), *overrides]
        code = subprocess.run(command, env=environment, check=False).returncode
        seconds = time.monotonic() - started
        return code, seconds, read_processes(records, started)


def read_processes(folder: Path, started: float) -> list[Process]:
    """Read the files of all processes, ordered by their start."""
    processes = []
    for path in folder.glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines:
            processes.append(_read_process([json.loads(line) for line in lines], started))
    processes.sort(key=lambda process: process.start)
    return processes


def _read_process(lines: list[dict[str, Any]], started: float) -> Process:
    first = lines[0]
    name = _name_process(first["process"])
    process = Process(name, first["start"] - started, first["ready"] - started)
    for line in lines[1:]:
        if "name" in line:
            line["start"] -= started
            line["end"] -= started
            process.spans.append(Span(**line))
        elif "imports" in line:
            for module, (end, seconds) in line["imports"].items():
                process.imports[module] = (end - started, seconds)
        else:
            process.end = line["end"] - started
            process.cpu = line["cpu"]
            process.megabytes = line["megabytes"]
    process.spans.sort(key=lambda span: (span.start, span.depth))
    return process


def _name_process(command: list[str]) -> str:
    """Name a process by its module or script."""
    if "-m" in command:
        module = command[command.index("-m") + 1]
        return module.rpartition(".")[2].removesuffix("_process")
    for argument in command[1:]:
        if not argument.startswith("-"):
            return Path(argument).name
    return "python"


def compute_figures(processes: list[Process], seconds: float) -> Figures:
    """Compute the figures of a command that took `seconds`."""
    cpu = sum(process.cpu or 0.0 for process in processes)
    if not processes:
        return Figures(None, None, None, None, None, None, seconds, cpu)
    spans = processes[0].spans
    steps = [span for span in spans if span.name == STEP]
    fits = [span for span in spans if span.name == "Trainer.fit"]
    later_steps = [span.seconds for span in steps[1:]]
    gaps = [gap.seconds_without_forward for gap in find_epoch_ends(spans)]
    return Figures(
        first_step=steps[0].end if steps else None,
        before_first_step=steps[0].start if steps else None,
        step=statistics.median(later_steps) if later_steps else None,
        slowest_step=max(later_steps, default=None),
        between_epochs=statistics.median(gaps) if gaps else None,
        after_fit=seconds - fits[-1].end if fits else None,
        whole=seconds,
        cpu=cpu,
    )


@dataclass(frozen=True)
class EpochEnd:
    """The time from the last step of an epoch to the first step of the next.

    Attributes:
        start: End of the last step, and of the GPU's work.
        end: Start of the next step.
        spans: What happened meanwhile.
    """

    start: float
    end: float
    spans: list[Span]

    @property
    def seconds_without_forward(self) -> float:
        """Wall seconds without the forward passes of the validation."""
        forward = sum(span.seconds for span in self.spans if span.name == FORWARD)
        return self.end - self.start - forward


def find_epoch_ends(spans: list[Span]) -> list[EpochEnd]:
    """Return the intervals between training steps in which a validation ran or an epoch started."""
    fits = [span for span in spans if span.name == "Trainer.fit"]
    if not fits:
        return []
    inside = [span for span in spans if fits[-1].start <= span.start <= fits[-1].end]
    steps = [span for span in inside if span.name == STEP]
    epoch_ends = []
    for step, following in itertools.pairwise(steps):
        between = []
        start = step.end
        for span in inside:
            if step.end <= span.start < following.start:
                between.append(span)
                if span.name == "wait for the device":
                    start = span.end
        if any(span.name == "validation" or "epoch_start" in span.name for span in between):
            epoch_ends.append(EpochEnd(start, following.start, between))
    return epoch_ends


def format_timeline(processes: list[Process], shortest: float) -> str:
    """Return a table of the spans of all processes, in one order of time.

    Args:
        processes: The processes.
        shortest: Hide spans that take fewer seconds. Steps of one epoch are one row.
    """
    rows: list[tuple[float, str]] = []
    for process in processes:
        rows.append(_format_row(process, Span("start Python", process.start, process.ready, 0, 0)))
        for span in join_repeated(process.spans):
            if span.seconds >= shortest:
                rows.append(_format_row(process, span))
        if process.end is not None:
            rows.append(_format_row(process, Span("exit", process.end, process.end, 0, 0)))
    rows.sort(key=lambda row: row[0])
    header = f"{'start':>8} {'seconds':>8} {'CPU s':>8}  {'process':<12} what"
    return "\n".join([header, *[text for _, text in rows], ""])


def _format_row(process: Process, span: Span) -> tuple[float, str]:
    name = "  " * span.depth + span.name
    if span.thread != "MainThread":
        name += f" (thread {span.thread})"
    numbers = f"{span.start:>8.2f} {span.seconds:>8.3f} {span.cpu:>8.2f}"
    return span.start, f"{numbers}  {process.name:<12} {name}"


def join_repeated(spans: list[Span]) -> list[Span]:
    """Join each sequence of training or validation steps, with the range of their seconds."""
    joined: list[Span] = []
    group: list[Span] = []

    def close_group() -> None:
        if not group:
            return
        name = group[0].name
        if len(group) > 1:
            seconds = [span.seconds for span in group]
            median = statistics.median(seconds)
            name = f"{len(group)} {name}s, median {median:.4f} s, slowest {max(seconds):.3f} s"
        cpu = sum(span.cpu for span in group)
        joined.append(Span(name, group[0].start, group[-1].end, cpu, group[0].depth))
        group.clear()

    is_first_step = True
    for span in spans:
        if span.name not in (STEP, FORWARD):
            close_group()
            joined.append(span)
            continue
        if group and group[0].name != span.name:
            close_group()
        group.append(span)
        if span.name == STEP and is_first_step:
            is_first_step = False
            close_group()
            joined[-1] = Span("first step", span.start, span.end, span.cpu, span.depth)
    close_group()
    return joined


def format_imports(processes: list[Process], count: int) -> str:
    """Return a table of the packages whose modules take longest to import, by process."""
    lines = []
    for process in processes:
        if not process.imports:
            continue
        steps = [span for span in process.spans if span.name == STEP]
        first_step = steps[0].start if steps else float("inf")
        packages: dict[str, list[float]] = {}
        for module, (end, seconds) in process.imports.items():
            package = packages.setdefault(module.partition(".")[0], [0, 0.0, 0.0])
            package[0] += 1
            package[1] += seconds
            if end <= first_step:
                package[2] += seconds
        total = sum(package[1] for package in packages.values())
        lines.append(f"imports of {process.name}: {len(process.imports):,} modules, {total:.2f} s")
        lines.append(f"{'package':<24}{'modules':>8}{'seconds':>9}{'before the first step':>23}")
        slowest = sorted(packages, key=lambda name: -packages[name][1])
        for name in slowest[:count]:
            modules, seconds, early = packages[name]
            lines.append(f"{name:<24}{modules:>8,}{seconds:>9.2f}{early:>23.2f}")
        lines.append("")
    return "\n".join(lines)


def format_figures(figures: Figures, processes: list[Process]) -> str:
    """Return the figures, one a line."""
    names = {
        "before_first_step": "start to first step",
        "first_step": "start to end of first step",
        "step": "training step, median",
        "slowest_step": "training step, slowest",
        "between_epochs": "between epochs, median, without validation's forward passes",
        "after_fit": "end of fit to end of process",
        "whole": "whole command",
        "cpu": "CPU time",
    }
    lines = []
    for name, text in names.items():
        value = getattr(figures, name)
        number = "-" if value is None else f"{value:.3f}"
        lines.append(f"{text:<60}{number:>10} s")
    for process in processes:
        if process.megabytes is not None:
            text = f"largest memory of {process.name}"
            lines.append(f"{text:<60}{process.megabytes:>10.0f} MB")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
