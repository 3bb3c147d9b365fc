"""Record when this process imports modules, calls certain functions, and takes training steps.

`benchmarks/timeline.py` starts `apps/train` with this folder in PYTHONPATH. Each process then
appends JSON lines to a file of its own. The app itself contains no timing code.
"""

import atexit
import functools
import importlib.abc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

STEP = "step"
TRAINER_CALLS = ("Trainer.fit", "Trainer.validate", "Trainer.test")

SPANS = {
    "cls_train.main": {"_compose_and_check": "compose and check the settings"},
    "cls_train.stages.evaluation_process": {
        "_start": "start the evaluation process",
        "_wait_for_answer": "wait for the evaluation process",
    },
    "cls_train.run": {"run": "run", "_finish": "report and summary", "_write_report": "report"},
    "cls_train.run_folder.run_paths": {"choose_run_paths": "choose the run folder"},
    "cls_train.stages.fit": {
        "fit": "train",
        "_build_training": "build",
        "_prepare_data": "data gate and decoding",
        "_begin": "create the run folder",
        "_add_metadata": "collect versions",
    },
    "cls_train.run_folder.provenance": {
        "get_code_commit": "ask git for the commit",
        "get_versions": "read package versions",
    },
    "cls_train.composition.resolve_preprocessing": {
        "resolve_preprocessing": "resolve the preprocessing"
    },
    "cls_train.builders.callbacks": {"build_callbacks": "build callbacks"},
    "cls_train.builders.data": {"build_data": "build the data module"},
    "cls_train.builders.trainer": {
        "build_trainer": "build the trainer",
        "build_evaluation_trainer": "build the trainer",
        "optimize_for_device": "prepare the network for the device",
    },
    "cls_train.builders.model": {"build_module": "build the network"},
    "cls_train.builders.loggers": {
        "open_loggers": "open loggers",
        "close_loggers": "close loggers",
    },
    "cls_data.datamodule": {
        "ClassificationDataModule.prepare_data": "prepare data",
        "ClassificationDataModule.setup": "read and decode",
    },
    "cls_data.gate.check": {"check": "data gate"},
    "lightning.pytorch.trainer.trainer": {name: name for name in TRAINER_CALLS},
    "lightning.pytorch.loops.training_epoch_loop": {"_TrainingEpochLoop.advance": STEP},
    "lightning.pytorch.loops.evaluation_loop": {
        "_EvaluationLoop.run": "validation",
        "_EvaluationLoop._evaluation_step": "validation step",
    },
    "cls_callbacks.checkpointing.atomic_io": {
        "AtomicCheckpointIO.save_checkpoint": "write a checkpoint"
    },
    "cls_train.stages.evaluate": {
        "warm_up_exporter": "warm up the exporter",
        "evaluate_and_write": "evaluate",
        "_load_run": "load the run",
        "_evaluate_weights": "evaluate the weights",
        "_score": "predictions and scores",
        "calibrate": "calibrate",
        "_export": "export",
        "_measure_robustness": "robustness curves",
    },
    "cls_export.convert.exporter": {
        "write_bundle": "write the bundle",
        "_write": "write the ONNX file",
        "check_parity": "compare ONNX with PyTorch",
    },
    "cls_export.bundle.golden": {
        "write_golden": "write golden images",
        "verify_bundle": "check the golden images",
    },
    "cls_export.runtime.classifier": {
        "Classifier.logits": "classify valid with the bundle",
    },
    "cls_report.reports.run_report": {"build_run_report": "compute the report"},
    "cls_report.page.render": {"write_report": "write the report"},
}
"""Functions to time, by module, with what each does."""

SHORTEST = 0.0005
"""Shorter spans of Lightning's hooks are not recorded."""

TRACED_STEPS = range(20, 30)


class Recorder:
    """Append spans of this process to a file of JSON lines.

    Args:
        folder: The folder of the files of all processes.
    """

    def __init__(self, folder: str) -> None:
        self._pid = os.getpid()
        path = Path(folder) / f"{self._pid}.jsonl"
        self._file = path.open("a", encoding="utf-8", buffering=1)  # the process may be killed
        self._stacks = threading.local()

    @property
    def stack(self) -> list[str]:
        """The names of the open spans of this thread."""
        if not hasattr(self._stacks, "names"):
            self._stacks.names = []
        names: list[str] = self._stacks.names
        return names

    def write(self, content: dict[str, Any]) -> None:
        """Append a line. Does nothing in a forked process, which shares the file."""
        if os.getpid() == self._pid:
            self._file.write(json.dumps(content) + "\n")

    @contextmanager
    def span(self, name: str, *, shortest: float = 0.0) -> Iterator[None]:
        """Record the wall and CPU seconds of the block."""
        stack = self.stack
        depth = len(stack)
        stack.append(name)
        started = time.monotonic()
        cpu = time.process_time()
        try:
            yield
        finally:
            ended = time.monotonic()
            stack.pop()
            if ended - started >= shortest:
                self.write(
                    {
                        "name": name,
                        "start": started,
                        "end": ended,
                        "cpu": time.process_time() - cpu,
                        "depth": depth,
                        "thread": threading.current_thread().name,
                    }
                )


def install(folder: str, trace: str | None) -> None:
    """Record this process to `folder`, and a trace of some training steps to the file `trace`."""
    recorder = Recorder(folder)
    recorder.write(
        {
            "process": sys.orig_argv,
            "start": time.monotonic() - time.process_time(),
            "ready": time.monotonic(),
        }
    )
    imports = ImportTimes(recorder)
    tracer = StepTracer(trace) if trace else None
    for name, functions in SPANS.items():
        imports.patches[name] = _FunctionPatch(recorder, functions, tracer)
    sys.meta_path.insert(0, imports)
    atexit.register(_finish, recorder, imports)


def _finish(recorder: Recorder, imports: "ImportTimes") -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    recorder.write({"imports": imports.seconds})
    recorder.write(
        {
            "end": time.monotonic(),
            "cpu": usage.ru_utime + usage.ru_stime,
            "megabytes": usage.ru_maxrss / 1024,
        }
    )


class ImportTimes(importlib.abc.MetaPathFinder):
    """Time each import, and patch certain modules once they are imported.

    Attributes:
        seconds: By module: when its import ended, and the wall seconds of finding and executing
            it without the modules that it imports.
        patches: Called with a module after its import, by the name of the module.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self.patches: dict[str, Callable[[ModuleType], None]] = {}
        self._recorder = recorder
        self._local = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as the other finders do, and time its loader."""
        started = time.monotonic()
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        finding = time.monotonic() - started
        if isinstance(spec.loader, SourceFileLoader | ExtensionFileLoader):
            self._time_loader(spec, finding)
        return spec

    @property
    def _nested_seconds(self) -> list[float]:
        """For each module that this thread is importing, the seconds of the modules it imports."""
        if not hasattr(self._local, "nested"):
            self._local.nested = []
        nested: list[float] = self._local.nested
        return nested

    def _time_loader(self, spec: ModuleSpec, finding: float) -> None:
        loader: Any = spec.loader
        create, execute = loader.create_module, loader.exec_module
        creating = 0.0

        def create_module(spec: ModuleSpec) -> ModuleType | None:
            nonlocal creating
            started = time.monotonic()
            module: ModuleType | None = create(spec)  # loads the library of an extension module
            creating = time.monotonic() - started
            return module

        def exec_module(module: ModuleType) -> None:
            self._execute(spec.name, module, execute, finding + creating)

        loader.create_module = create_module
        loader.exec_module = exec_module

    def _execute(
        self, name: str, module: ModuleType, execute: Callable[[ModuleType], None], before: float
    ) -> None:
        nested = self._nested_seconds
        is_outermost = not nested
        nested.append(0.0)
        cpu = time.process_time()
        started = time.monotonic()
        try:
            execute(module)
        finally:
            ended = time.monotonic()
            whole = before + ended - started
            self.seconds[name] = (ended, whole - nested.pop())
            if nested:
                nested[-1] += whole
        if is_outermost and whole > 0.02:
            self._recorder.write(
                {
                    "name": f"import {name}",
                    "start": started - before,
                    "end": ended,
                    "cpu": time.process_time() - cpu,
                    "depth": len(self._recorder.stack),
                    "thread": threading.current_thread().name,
                }
            )
        if name in self.patches:
            self.patches[name](module)


class _FunctionPatch:
    """Time functions and methods of a module."""

    def __init__(
        self, recorder: Recorder, functions: dict[str, str], tracer: "StepTracer | None"
    ) -> None:
        self._recorder = recorder
        self._functions = functions
        self._tracer = tracer

    def __call__(self, module: ModuleType) -> None:
        """Replace the functions in the module."""
        for path, name in self._functions.items():
            owner: Any = module
            *parents, attribute = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            function = getattr(owner, attribute)
            timed = self._time_step(function) if name == STEP else self._time(function, name)
            setattr(owner, attribute, timed)

    def _time(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if name in TRAINER_CALLS:
                record_hooks(self._recorder, args[0])
            with self._recorder.span(name):
                return function(*args, **kwargs)

        return timed

    def _time_step(self, advance: Callable[..., Any]) -> Callable[..., Any]:
        """Time a training step: the next batch, forward, backward, optimizer, and callbacks."""

        @functools.wraps(advance)
        def timed(loop: Any, *args: Any, **kwargs: Any) -> Any:
            if self._tracer is not None:
                self._tracer.count_step()
            with self._recorder.span(STEP):
                result = advance(loop, *args, **kwargs)
            if loop.batch_progress.is_last_batch:
                self._wait_for_device()
            return result

        return timed

    def _wait_for_device(self) -> None:
        """Wait for a GPU, so that its steps are not counted as part of the epoch's end."""
        torch = sys.modules["torch"]
        if torch.cuda.is_initialized():
            with self._recorder.span("wait for the device"):
                torch.cuda.synchronize()


def record_hooks(recorder: Recorder, trainer: Any) -> None:
    """Record the hooks of callbacks, strategy, and module outside of steps.

    Lightning reports them to the profiler of the trainer, which does nothing by default.
    """

    @contextmanager
    def profile(action_name: str) -> Iterator[str]:
        if recorder.stack and recorder.stack[-1] in (STEP, "validation step"):
            yield action_name
            return
        with recorder.span(action_name, shortest=SHORTEST):
            yield action_name

    trainer.profiler.profile = profile


class StepTracer:
    """Write a trace of the steps `TRACED_STEPS` for Perfetto or chrome://tracing.

    Args:
        path: The file to write.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._steps = 0
        self._profiler: Any = None

    def count_step(self) -> None:
        """Start or stop the profiler when its step begins."""
        if self._steps == TRACED_STEPS.start:
            from torch.profiler import profile

            self._profiler = profile()
            self._profiler.start()
        if self._steps == TRACED_STEPS.stop:
            self._profiler.stop()
            self._profiler.export_chrome_trace(self._path)
        self._steps += 1
