"""The timeline of `benchmarks/timeline.py` names real functions, and has every stage of a run."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY_RUN = ("debug=tiny", "data=synthetic_tiny")


@pytest.fixture
def timeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("timeline")


def test_every_timed_function_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS / "timeline_probe")
    probe = importlib.import_module("process_probe")
    for name, functions in probe.SPANS.items():
        module = importlib.import_module(name)
        for path in functions:
            owner = module
            for attribute in path.split("."):
                owner = getattr(owner, attribute)
            assert callable(owner)


def write_record(folder: Path, spans: list[tuple[str, float, float]]) -> None:
    lines: list[dict[str, object]] = [
        {"process": ["python", "-P", "-m", "a.train_process"], "start": 100.0, "ready": 100.5}
    ]
    for name, start, end in spans:
        lines.append(
            {"name": name, "start": start, "end": end, "cpu": 1.0, "depth": 0, "thread": "T"}
        )
    lines.append({"imports": {"torch": [101.0, 0.5], "torch.nn": [101.5, 0.25]}})
    lines.append({"end": 130.0, "cpu": 12.0, "megabytes": 500.0})
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "7.jsonl").write_text(text, encoding="utf-8")


def test_figures_are_computed_from_the_spans(timeline: ModuleType, tmp_path: Path) -> None:
    spans = [
        ("step", 104.0, 106.0),
        ("step", 106.0, 107.0),
        ("wait for the device", 107.0, 107.5),
        ("validation", 107.5, 109.5),
        ("validation step", 108.0, 109.0),
        ("write a checkpoint", 109.5, 110.0),
        ("step", 111.0, 113.0),
        ("Trainer.fit", 103.0, 115.0),
    ]
    write_record(tmp_path, spans)
    processes = timeline.read_processes(tmp_path, 100.0)
    assert [process.name for process in processes] == ["train"]
    figures = timeline.compute_figures(processes, 30.0)
    assert figures.before_first_step == 4.0
    assert figures.first_step == 6.0
    assert figures.step == 1.5
    assert figures.slowest_step == 2.0
    assert figures.between_epochs == pytest.approx(3.5 - 1.0)
    assert figures.after_fit == 15.0
    assert figures.cpu == 12.0

    table = timeline.format_timeline(processes, 0.1)
    assert "first step" in table
    assert "write a checkpoint" in table
    imports = timeline.format_imports(processes, 5).splitlines()
    assert imports[2].split() == ["torch", "2", "0.75", "0.75"]


def test_a_process_that_was_killed_has_no_end(timeline: ModuleType, tmp_path: Path) -> None:
    line = {"process": ["python", "apps/train"], "start": 100.0, "ready": 100.5}
    (tmp_path / "7.jsonl").write_text(json.dumps(line), encoding="utf-8")
    (tmp_path / "8.jsonl").write_text("", encoding="utf-8")
    (process,) = timeline.read_processes(tmp_path, 100.0)
    assert process.end is None
    figures = timeline.compute_figures([process], 30.0)
    assert figures.first_step is None
    assert "start Python" in timeline.format_timeline([process], 0.0)
    assert figures.whole == 30.0


@pytest.mark.slow
def test_a_tiny_run_has_every_stage(timeline: ModuleType, tmp_path: Path) -> None:
    overrides = [*TINY_RUN, f"data.root={tmp_path}/data", f"run.root={tmp_path}/runs"]
    code, seconds, processes = timeline.record(overrides)
    assert code == 0
    assert [process.name for process in processes] == ["train", "evaluation"]
    figures = timeline.compute_figures(processes, seconds)
    assert 0 < figures.first_step < figures.whole
    assert figures.between_epochs > 0
    assert 0 < figures.after_fit < figures.whole

    train, evaluation = processes
    names = {span.name for span in train.spans}
    assert {"build", "step", "validation", "report"} <= names
    assert any(name.startswith("[Callback]") for name in names)
    names = {span.name for span in evaluation.spans}
    assert {"warm up the exporter", "evaluate the weights", "write the ONNX file"} <= names
    for process in processes:
        own_seconds = sum(seconds for _, seconds in process.imports.values())
        assert own_seconds < process.end - process.start
