"""Check a data root: inspect every row and image once, and apply the gate's rules."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from cls_data.annotations.fingerprint import compute_fingerprint
from cls_data.annotations.quarantine import Quarantine, is_line, write_quarantine
from cls_data.annotations.reading import BadRow, Record, Split
from cls_data.data_source import Layout, scan_data, uses_class_folders
from cls_data.errors import MAX_LISTED, DataError
from cls_data.gate.config import GateConfig, Policy
from cls_data.gate.inputs import Finding, GateInputs, GateRow
from cls_data.gate.inspection import empty_result, inspect_files
from cls_data.gate.rules import apply_rules
from cls_data.splits.folder_split import FolderSplit
from cls_export.contract.preprocessing import Preprocessing


@dataclass(frozen=True)
class CheckReport:
    """Result of a check.

    Attributes:
        root: The data root.
        inputs: The rows, and facts about their image files; empty after `without_inputs`.
        config: Policies and thresholds.
        findings: Findings by rule, the most severe first; rules without findings are absent.
        row_counts: Number of valid rows of each split.
        fingerprint: SHA-256 of all valid rows and the bytes of their images, in any order.
        preprocessing: The decoder of the images.
        notes: What was skipped in class folders, and how they were split.
        annotations: Subfolder of the root with the split folders; empty for the root itself.
        layout: How the data are annotated, as given to `check`.
    """

    root: Path
    inputs: GateInputs
    config: GateConfig
    findings: Mapping[str, Sequence[Finding]]
    row_counts: Mapping[str, int]
    fingerprint: str
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()
    annotations: str = ""
    layout: Layout = "auto"

    def findings_with(self, policy: Policy) -> dict[str, Sequence[Finding]]:
        """Return the findings of the rules with a policy."""
        selected = {}
        for rule, findings in self.findings.items():
            if self.config.policy(rule) == policy:
                selected[rule] = findings

        return selected

    def count(self, policy: Policy) -> int:
        """Return the number of findings of the rules with a policy."""
        count = 0
        for findings in self.findings_with(policy).values():
            count += len(findings)
        return count

    @property
    def passed(self) -> bool:
        """Whether no rule with the policy `error` has a finding."""
        errors = self.count("error")
        return errors == 0

    def records(self) -> dict[Split, list[Record]]:
        """Return the valid rows of each split."""
        records: dict[Split, list[Record]] = {}
        for row in self.inputs.rows:
            records.setdefault(row.split, []).append(row.record)
        return records

    def without_inputs(self) -> Self:
        """Return the report without rows and image facts, which take 0.9 GB for a million rows.

        It can no longer draw findings or write a quarantine.
        """
        return replace(self, inputs=GateInputs((), (), empty_result(0)))

    def rows_to_quarantine(self) -> dict[str, list[str]]:
        """Return the rows to remove to satisfy the rules with the policy `error`.

        Removing rows can break others (a label of valid then no longer occurs in train), so the
        rules are applied again until they find nothing to remove. Findings about no row, such as
        a class that is absent from valid, remain.

        Returns:
            The names of the violated rules by `file:line`.
        """
        reasons: dict[str, list[str]] = {}
        findings: Mapping[str, Sequence[Finding]] = self.findings_with("error")
        while new_reasons := _rules_by_row(findings):
            reasons.update(new_reasons)
            remaining = self.inputs.without(reasons)
            findings = apply_rules(remaining, self.config, ("error",))
        return dict(sorted(reasons.items(), key=lambda item: _file_and_line(item[0])))

    def write_quarantine(self, path: str | os.PathLike[str]) -> int:
        """Write the quarantine file, and return its number of rows."""
        reasons = self.rows_to_quarantine()
        write_quarantine(path, self.root, reasons)
        return len(reasons)

    def summary(self, policy: Policy) -> list[str]:
        """Return a line for each rule with a policy: name, number of findings, and the worst."""
        lines = []
        for rule, findings in self.findings_with(policy).items():
            worst = findings[0]
            lines.append(f"{rule} ({len(findings)}): {worst.text}")
        return lines

    def raise_for_errors(self) -> None:
        """Raise a `DataError` with the findings if the data failed the check."""
        if self.passed:
            return

        lines = [f"{self.root}: the data failed the gate"]
        for rule, findings in self.findings_with("error").items():
            lines.append(f"{rule} ({len(findings)}):")
            for finding in findings[:MAX_LISTED]:
                lines.append(f"  {finding.text}")
            if len(findings) > MAX_LISTED:
                lines.append(f"  … and {len(findings) - MAX_LISTED} more")

        command = f"cls-data check {shlex.quote(str(self.root))}"
        if self.annotations:
            command += f" --annotations {shlex.quote(self.annotations)}"
        if self.layout == "folder" and not uses_class_folders(self.root, "auto"):
            command += " --layout folder"
        lines.append(
            f"Correct the rows, or leave them out: `{command} --quarantine FILE` "
            "writes a list, and data.quarantine=FILE trains without them. data.gate.RULE=warn "
            "turns a rule into a warning, but rows and images that cannot be read always stop "
            "a run."
        )
        raise DataError("\n".join(lines))


def check(
    root: str | os.PathLike[str],
    preprocessing: Preprocessing,
    config: GateConfig | None = None,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
    layout: Layout = "auto",
    split: FolderSplit | None = None,
    workers: int = 1,
    progress: bool = False,
) -> CheckReport:
    """Check every row and every image of a data root.

    Args:
        root: The data root.
        preprocessing: Decodes the images.
        config: Policies and thresholds; None for the defaults.
        annotations: Subfolder of the root with the split folders, such as `folds/0`.
        quarantine: Rows to leave out.
        layout: How the data are annotated.
        split: How to split class folders without a valid folder; None for the defaults.
        workers: Number of worker processes or threads; see `map_chunks`.
        progress: Show a progress bar.

    Raises:
        DataError: There are no rows, or the quarantine belongs to other rows.
    """
    config = config or GateConfig()
    base = Path(root).resolve()
    data = scan_data(
        base, layout=layout, annotations=annotations, quarantine=quarantine, split=split
    )

    records: list[tuple[Split, Record]] = []
    bad_rows: list[BadRow] = []
    for name, rows in data.splits.items():
        bad_rows += rows.bad_rows
        for record in rows.records:
            records.append((name, record))
    if not records and not bad_rows:
        message = (
            f"{base / annotations}: no rows; expected *.jsonl files in train/, valid/, or test/, "
            "or class folders"
        )
        if quarantine is not None and quarantine.rows:
            message += ", with rows that the quarantine does not leave out"
        raise DataError(message)

    row_paths = [record.path for _, record in records]
    paths = sorted(set(row_paths), key=lambda path: path.parts)
    indices = {path: index for index, path in enumerate(paths)}
    gate_rows = []
    for (name, record), path in zip(records, row_paths, strict=True):
        gate_rows.append(GateRow(name, record, indices[path]))
    inputs = GateInputs(
        rows=gate_rows,
        bad_rows=bad_rows,
        files=inspect_files(
            paths, preprocessing, workers=workers, progress="checking images" if progress else None
        ),
    )
    digests: dict[str, list[tuple[Record, bytes]]] = defaultdict(list)
    for row in inputs.rows:
        digests[row.split].append((row.record, inputs.files.file_digests[row.file]))
    return CheckReport(
        root=base,
        inputs=inputs,
        config=config,
        findings=apply_rules(inputs, config),
        row_counts=dict(Counter(row.split for row in inputs.rows)),
        fingerprint=compute_fingerprint(digests),
        preprocessing=preprocessing,
        notes=data.notes,
        annotations=annotations,
        layout=layout,
    )


def _rules_by_row(findings: Mapping[str, Sequence[Finding]]) -> dict[str, list[str]]:
    """Return the names of the violated rules for each row to quarantine."""
    rules: dict[str, list[str]] = {}
    for rule, rule_findings in findings.items():
        for finding in rule_findings:
            for source in finding.quarantine:
                names = rules.setdefault(source, [])
                if rule not in names:
                    names.append(rule)

    return rules


def _file_and_line(source: str) -> tuple[str, int]:
    if not is_line(source):  # an image in a class folder
        return source, 0
    file, _, line = source.rpartition(":")
    return file, int(line)
