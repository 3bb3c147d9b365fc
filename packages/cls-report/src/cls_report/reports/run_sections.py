"""Sections about how a run was trained: data, training curves, cost, and how to reproduce it."""

import shlex
from dataclasses import dataclass
from typing import Literal

from cls_export.contract.bundle_layout import MODEL_FILE
from cls_report.page.blocks import (
    Block,
    CellValue,
    Chart,
    Code,
    Facts,
    Header,
    Row,
    Section,
    Series,
    Table,
    Text,
)
from cls_report.reports.evaluation_blocks import display_name
from cls_report.run_files import DataCheckFile
from cls_report.run_folder import Run

_MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class _Curve:
    """A chart of logged metrics over epochs."""

    title: str
    metrics: tuple[str, ...]
    unit: Literal["share", "number"] = "number"
    note: str = ""


_CURVES = (
    _Curve("Loss", ("train_loss", "valid_loss"), note="In nats. train_loss is the optimized loss."),
    _Curve("Accuracy", ("train_top1", "valid_top1", "valid_top5", "valid_macro_f1"), "share"),
    _Curve("Learning rate", ("lr",)),
    _Curve("Training images per second", ("images_per_second",)),
    _Curve("Share of training time spent waiting for data", ("data_wait",), "share"),
    _Curve("GPU memory, GB", ("gpu_memory_gb",), note="Peak memory of tensors in each epoch."),
    _Curve("Gradient norm", ("grad_norm",)),
)


def data_section(run: Run) -> Section:
    """Describe the data and the findings of the data gate."""
    blocks: list[Block] = [Facts(facts=_data_facts(run))]
    check = run.data_check
    if check is not None and check.findings:
        blocks.append(_findings_table(check))
    elif check is not None:
        blocks.append(Text(text="The data gate reported no problems.", tone="muted"))
    else:
        text = "The data was not checked: the data gate (data.gate) was off."
        blocks.append(Text(text=text, tone="warning"))

    if run.statistics.counts:
        blocks.append(_class_counts_table(run.statistics.counts))
    return Section(key="data", title="Data", blocks=tuple(blocks))


def _data_facts(run: Run) -> dict[str, str]:
    facts = {"data root": str(run.data_root)}
    annotations = run.settings.data.annotations
    if annotations:
        facts["annotations"] = annotations

    for split, by_class in run.statistics.counts.items():
        sizes = run.statistics.sizes[split]
        width = _describe_range(sizes.width)
        height = _describe_range(sizes.height)
        images = sum(by_class.values())
        facts[split] = f"{images:,} images; width {width}, height {height}"

    facts["data fingerprint"] = run.labels.provenance.data_fingerprint or "unknown"
    return facts


def _describe_range(summary: tuple[float, float, float]) -> str:
    """Describe minimum, median, and maximum of a size in pixels."""
    low, median, high = summary
    return f"{low:g} to {high:g} px (median {median:g})"


def _findings_table(check: DataCheckFile) -> Table:
    headers: list[Header] = [
        ("rule", "text"),
        ("findings", "count"),
        ("policy", "text"),
        ("examples", "text"),
    ]
    rows: list[Row] = []
    for rule, entries in check.findings.items():
        policy = str(check.config.get(rule, ""))
        texts = [str(entry.get("text", entry)) for entry in entries[:_MAX_EXAMPLES]]
        examples = "\n".join(texts)
        rows.append((rule, len(entries), policy, examples))

    note = "All findings are in data_check.json in the run folder."
    return Table.from_rows("Findings of the data gate", headers, rows, note)


def _class_counts_table(counts: dict[str, dict[str, int]]) -> Table:
    headers: list[Header] = [("class", "text")]
    for split in counts:
        headers.append((split, "count"))

    first_split = next(iter(counts.values()))
    rows = []
    for name in first_split:
        row: list[CellValue] = [display_name(name)]
        for by_class in counts.values():
            count = by_class.get(name, 0)
            row.append(count)
        rows.append(row)

    return Table.from_rows("Images per class", headers, rows)


def training_section(run: Run) -> Section:
    """Return charts of the logged metrics; empty if none were logged."""
    charts = []
    for curve in _CURVES:
        lines = [metric_series(run, metric, metric) for metric in curve.metrics]
        series = [line for line in lines if line.x]
        if not series:
            continue
        chart = Chart(
            title=curve.title,
            x_title="epoch",
            y_title=curve.title,
            x_unit="count",
            y_unit=curve.unit,
            series=tuple(series),
            note=curve.note,
        )
        charts.append(chart)

    return Section(key="training", title="Training", blocks=tuple(charts))


def metric_series(run: Run, metric: str, name: str) -> Series:
    """Return a logged metric over epochs, counted from 1; empty if it was not logged."""
    epochs, values = run.metric_history(metric)
    return Series(name=name, x=epochs, y=values)


def cost_section(run: Run) -> Section:
    """Return training time, model size, and latency; empty without these files."""
    facts = {**_time_facts(run), **_model_facts(run)}
    model_file = run.paths.bundle / MODEL_FILE
    if model_file.is_file():
        size = model_file.stat().st_size / 1e6
        facts["exported file"] = f"{size:.1f} MB"
        facts["to measure its latency"] = f"cls-export bench {shlex.quote(str(run.paths.bundle))}"

    onnx = run.evaluation.onnx
    if onnx is not None:
        difference = onnx.max_logit_difference
        facts["exported logits"] = (
            f"from image files, they differ from PyTorch by at most {difference:.1e}"
        )

    blocks = []
    if facts:
        blocks.append(Facts(facts=facts))
    return Section(key="cost", title="Cost", blocks=tuple(blocks))


def _time_facts(run: Run) -> dict[str, str]:
    facts = {}
    seconds = run.fit.fit_seconds
    if seconds:
        facts["training"] = f"{seconds:,.0f} s for {len(run.history)} epochs"
        stepping = _step_seconds(run)
        if stepping:
            share = stepping / seconds
            facts["training steps"] = (
                f"{stepping:,.0f} s ({share:.0%} of training); the rest is data reading and "
                "checks, validation, checkpoints, and plots"
            )

    speed = run.fit.train_images_per_second
    if speed:
        facts["speed"] = f"{speed:,.0f} images per second"
    return facts


def _step_seconds(run: Run) -> float:
    counts = run.statistics.counts.get("train", {})
    images = sum(counts.values())
    _, rates = run.metric_history("images_per_second")
    return sum(images / rate for rate in rates if rate > 0)


def _model_facts(run: Run) -> dict[str, str]:
    model = run.model_info
    if model is None:
        return {}

    height, width = model.image
    name = run.settings.model.name or ""
    threads = "1 thread" if model.threads == 1 else f"{model.threads} threads"
    facts = {
        "model": f"{name}, {model.parameters:,} parameters",
        "trainable parameters": f"{model.trainable:,}",
        "input": f"{height} x {width} px (height x width)",
    }
    if model.flops:
        facts["operations"] = f"{model.flops / 1e9:.3f} GFLOPs per image"
    latency = f"{model.latency_ms:.1f} ms per image"
    facts["latency in PyTorch"] = f"{latency} ({model.device}, {threads})"
    facts["weights"] = f"{model.weights_mb:.1f} MB"
    return facts


def reproduction_section(run: Run) -> Section:
    """Return commit, versions, command, and configuration."""
    arguments = run.origin.arguments
    commit = run.labels.provenance.code_commit
    seed = str(run.settings.seed)
    facts = {"commit": commit or "unknown (no git)", "seed": seed, **run.origin.versions}
    blocks: list[Block] = [Facts(facts=facts)]
    if commit and commit.endswith("-dirty"):
        text = "The code had uncommitted changes, so the commit alone does not reproduce this run."
        blocks.append(Text(text=text, tone="warning"))
    if arguments:
        command = f"uv run apps/train {shlex.join(arguments)}"
        blocks.append(Code(title="Command", text=command))
    blocks.append(Code(title="Configuration (config.yaml)", text=run.config_text, folded=True))
    return Section(key="reproduce", title="Reproduce this run", blocks=tuple(blocks))
