"""What a report says of how a run came about: its data, its course, its cost, and how to have it again."""

import shlex
from typing import Any

from cls_report.page.blocks import Block, Chart, Code, Column, Facts, Section, Series, Table, Text
from cls_report.reports.evaluation_sections import shown_name
from cls_report.run_folder import Run

_SHOWN_FINDINGS = 5

_CURVES = (
    ("loss", "number", ("train_loss", "valid_loss"), "nats; that of training as it was optimised"),
    ("right answers", "share", ("train_top1", "valid_top1", "valid_top5", "valid_macro_f1"), ""),
    ("learning rate", "number", ("lr",), ""),
    ("training images a second", "number", ("images_per_second",), ""),
    ("share of training that waits for data", "share", ("data_wait",), ""),
    ("GPU memory, GB", "number", ("gpu_memory_gb",), "the most that tensors took in an epoch"),
    ("gradient norm", "number", ("grad_norm",), ""),
)


def data_section(run: Run) -> Section:
    """Say what the run was trained on, and what the gate found there."""
    blocks: list[Block] = []
    checked, counted = run.json("data_check.json"), run.json("statistics.json")
    counts: dict[str, dict[str, int]] = counted.get("counts", {})
    facts = {"data root": str(run.root)}
    if annotations := run.config["data"].get("annotations"):
        facts["annotations"] = annotations
    for split, by_class in counts.items():
        width, height = (counted["sizes"][split][side] for side in ("width", "height"))
        facts[split] = (
            f"{sum(by_class.values()):,} images; {width[0]:g} to {width[2]:g} px wide (median {width[1]:g}), "
            f"{height[0]:g} to {height[2]:g} px high (median {height[1]:g})"
        )
    facts["fingerprint"] = run.labels.provenance.data_fingerprint or "not known"
    blocks.append(Facts(facts=facts))
    findings: dict[str, list[dict[str, Any]]] = checked.get("findings", {})
    if findings:
        blocks.append(_findings(findings, checked.get("config", {})))
    elif checked:
        blocks.append(Text(text="The data gate found nothing to complain of.", tone="faint"))
    else:
        blocks.append(
            Text(text="The data did not go through the gate (data.gate).", tone="warning")
        )
    if counts:
        blocks.append(_class_counts(counts))
    return Section(key="data", title="Data", blocks=tuple(blocks))


def _findings(findings: dict[str, list[dict[str, Any]]], policies: dict[str, Any]) -> Table:
    rows = [(rule, len(found), policies.get(rule, ""), found) for rule, found in findings.items()]
    return Table(
        title="What the data gate found",
        columns=(
            Column(title="rule", kind="text", values=tuple(row[0] for row in rows)),
            Column(title="found", kind="count", values=tuple(row[1] for row in rows)),
            Column(title="policy", kind="text", values=tuple(row[2] for row in rows)),
            Column(
                title="examples",
                kind="text",
                values=tuple(
                    "\n".join(str(each.get("text", each)) for each in row[3][:_SHOWN_FINDINGS])
                    for row in rows
                ),
            ),
        ),
        note="data_check.json in the run's folder has all of them.",
    )


def _class_counts(counts: dict[str, dict[str, int]]) -> Table:
    names = tuple(next(iter(counts.values())))
    by_split = [
        Column(
            title=split,
            kind="count",
            values=tuple(float(counts[split].get(name, 0)) for name in names),
        )
        for split in counts
    ]
    first = Column(title="class", kind="text", values=tuple(map(shown_name, names)))
    return Table(title="Images of each class", columns=(first, *by_split))


def training_section(run: Run) -> Section | None:
    """Show the course of training; None where no metrics were kept."""
    charts = [chart for chart in (_curve(run, *curve) for curve in _CURVES) if chart is not None]
    return Section(key="training", title="Training", blocks=tuple(charts)) if charts else None


def _curve(run: Run, title: str, unit: str, names: tuple[str, ...], note: str) -> Chart | None:
    series = []
    for name in names:
        points = [(row["epoch"] + 1, row[name]) for row in run.history if name in row]
        if points:
            series.append(
                Series(name=name, x=tuple(x for x, _ in points), y=tuple(y for _, y in points))
            )
    if not series:
        return None
    return Chart(
        title=title,
        x_title="epoch",
        y_title=title,
        x_unit="count",
        y_unit="share" if unit == "share" else "number",
        series=tuple(series),
        note=note,
    )


def cost_section(run: Run) -> Section:
    """Say what the model takes, in time and in space."""
    summary, model = run.json("summary.json"), run.json("model_info.json")
    facts: dict[str, str] = {}
    if seconds := summary.get("fit_seconds"):
        facts["training"] = f"{seconds:,.0f} s for {len(run.history)} epochs"
        if rates := [
            row["images_per_second"] for row in run.history if row.get("images_per_second")
        ]:
            stepping = sum(_train_images(run) / rate for rate in rates)
            facts["of it in training steps"] = (
                f"{stepping:,.0f} s ({stepping / seconds:.0%}); the rest is reading and "
            )
            facts["of it in training steps"] += (
                "checking data, validation, checkpoints and pictures"
            )
    if speed := summary.get("train_images_per_second"):
        facts["speed"] = f"{speed:,.0f} images a second"
    if model:
        height, width = model["image"]
        facts["model"] = (
            f"{run.config['model'].get('name', '')}, {model['parameters']:,} parameters"
        )
        facts["trainable"] = f"{model['trainable']:,}"
        facts["input"] = f"{height} x {width} px (height x width)"
        if model.get("flops"):
            facts["operations"] = f"{model['flops'] / 1e9:.3f} GFLOPs an image"
        facts["latency"] = (
            f"{model['latency_ms']:.1f} ms an image in PyTorch ({model['device']}, {model['threads']} threads)"
        )
        facts["weights"] = f"{model['weights_mb']:.1f} MB"
    exported = run.path / "export" / "model.onnx"
    if exported.is_file():
        facts["exported file"] = (
            f"{exported.stat().st_size / 1e6:.1f} MB; cls-export bench {run.path}/export times it"
        )
    if (onnx := (run.json("evaluation.json")).get("onnx")) is not None:
        facts["exported answers"] = (
            f"logits within {onnx['max_logit_difference']:.1e} of PyTorch's, from image files"
        )
    return Section(key="cost", title="Time and size", blocks=(Facts(facts=facts),) if facts else ())


def _train_images(run: Run) -> int:
    return sum(run.json("statistics.json").get("counts", {}).get("train", {}).values())


def reproduction_section(run: Run) -> Section:
    """Say how to have the run again."""
    origin, provenance = run.json("origin.json"), run.labels.provenance
    facts = {
        "commit": provenance.code_commit or "not known (no git)",
        "seed": str(run.config.get("seed", "")),
    }
    facts |= origin.get("versions", {})
    blocks: list[Block] = [Facts(facts=facts)]
    if provenance.code_commit and provenance.code_commit.endswith("-dirty"):
        text = "The code had changes that no commit holds, so the commit alone does not bring this run back."
        blocks.append(Text(text=text, tone="warning"))
    if arguments := origin.get("arguments"):
        blocks.append(Code(title="The command", text=f"uv run apps/train {shlex.join(arguments)}"))
    blocks.append(
        Code(title="The whole configuration (config.yaml)", text=run.config_text, folded=True)
    )
    return Section(key="reproduce", title="How to reproduce it", blocks=tuple(blocks))
