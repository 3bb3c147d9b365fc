"""Options of onnxruntime sessions: threads, memory, and execution providers."""

import os
from collections.abc import Sequence

import onnxruntime as ort

from cls_export.contract.errors import BundleError

CPU = "CPUExecutionProvider"

_SPIN_DURATION_VERSION = (1, 26)
"""The first onnxruntime with `spin_duration_us`."""
_SPIN_MICROSECONDS = 1

_MISSING_FOLDER = "/cls-export-reads-no-external-data"


def build_session_options(threads: int | None, low_memory: bool) -> ort.SessionOptions:
    """Return the options of `Classifier`, which keep the session to one file."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only; callers cannot act on warnings about the machine
    _shorten_spinning(options)
    options.intra_op_num_threads = threads or _count_restricted_cores()
    if low_memory:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED

    # A missing folder keeps onnxruntime from reading external data from other files, even
    # through links.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _MISSING_FOLDER
    )
    # The default, except for files named *.ort.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _shorten_spinning(options: ort.SessionOptions) -> None:
    """Let idle threads sleep soon.

    By default, idle threads of onnxruntime spin, which takes cores from other processes and from
    descheduled threads of this session. Without any spinning, each operator wakes its threads
    anew, which is slower on an idle machine. Measured by `benchmarks/export_threads.py`.
    """
    major, minor = ort.__version__.split(".")[:2]
    if (int(major), int(minor)) >= _SPIN_DURATION_VERSION:
        options.add_session_config_entry(
            "session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS)
        )
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _count_restricted_cores() -> int:
    """Return the cores that a container or `taskset` leaves this process.

    Returns 0, the value for onnxruntime's own choice, if the process may use all cores.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return 0

    allowed = len(os.sched_getaffinity(0))
    total = os.cpu_count() or allowed
    return allowed if allowed < total else 0


def select_providers(providers: Sequence[str], allow_cpu: bool) -> list[str]:
    """Return the given providers that this onnxruntime has.

    Raises:
        BundleError: One is missing, and the CPU may not replace it.
        ValueError: A provider is not a name.
    """
    available = ort.get_available_providers()
    for name in providers:
        if not isinstance(name, str):
            raise ValueError(f"providers are names such as {available[0]!r}, got {name!r}")

    missing = [name for name in providers if name not in available]
    if missing and not allow_cpu:
        raise BundleError(
            f"execution providers {missing} are not available; this onnxruntime has {available}. "
            "Install an onnxruntime build that has them, or pass allow_cpu=True"
        )

    return [name for name in providers if name in available] or [CPU]
