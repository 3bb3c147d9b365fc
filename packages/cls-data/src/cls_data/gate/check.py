"""The data gate: looks at every row and every image once, and says what is wrong, where, and how often."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cls_data.annotations.fingerprint import fingerprint
from cls_data.annotations.quarantine import Quarantine, write_quarantine
from cls_data.annotations.reading import SPLITS, BadRow, Record, scan_split
from cls_data.errors import SHOWN, DataError
from cls_data.gate.config import RULES, GateConfig, Policy
from cls_data.gate.inputs import Finding, GateInputs, Row
from cls_data.gate.inspection import Inspection
from cls_data.gate.rules import JUDGES
from cls_export.contract.preprocessing import Preprocessing


@dataclass(frozen=True)
class CheckReport:
    """What the gate found.

    Attributes:
        root: the data root.
        evidence: the rows, and what was found in their image files.
        config: policies and thresholds.
        findings: by rule, for the rules that are not off and that found something; the worst first.
        fingerprint: SHA-256 over all good rows and the bytes of their images, whatever their order.
        preprocessing: what decoded the images.
    """

    root: Path
    evidence: GateInputs
    config: GateConfig
    findings: Mapping[str, Sequence[Finding]]
    fingerprint: str
    preprocessing: Preprocessing

    def count(self, policy: Policy) -> int:
        """Return the number of findings of the rules with a policy."""
        return sum(
            len(found)
            for rule, found in self.findings.items()
            if self.config.policy(rule) == policy
        )

    @property
    def passed(self) -> bool:
        """Whether no rule whose policy is `error` found anything."""
        return self.count("error") == 0

    def rows(self) -> dict[str, int]:
        """Return the number of good rows of each split."""
        return dict(Counter(row.split for row in self.evidence.rows))

    def to_leave_out(self) -> dict[str, list[str]]:
        """Return the rows without which no rule that is an error finds a row: `file:line` to names of rules.

        Leaving rows out can make others wrong (a label of valid that train then lacks), so the rules are asked again
        until they are content. What is no row's fault, such as a class that is absent from valid, is left.
        """
        reasons: dict[str, list[str]] = {}
        findings: Mapping[str, Sequence[Finding]] = self.findings
        while True:
            new: dict[str, list[str]] = {}
            for rule, found in findings.items():
                if self.config.policy(rule) == "error":
                    for source in {source for finding in found for source in finding.leave_out}:
                        new.setdefault(source, []).append(rule)
            if not new:
                return dict(sorted(reasons.items(), key=_file_and_line))
            reasons.update(new)
            findings = _judge(_without(self.evidence, reasons), self.config, ("error",))

    def write_quarantine(self, path: str | os.PathLike[str]) -> int:
        """Write the list of rows to leave out, and return their number."""
        reasons = self.to_leave_out()
        write_quarantine(path, self.root, reasons)
        return len(reasons)

    def summary(self, policy: Policy) -> list[str]:
        """Return a line for each rule with this policy that found something: its name, a count, the worst."""
        return [
            f"{rule}: {len(found)} found; {found[0].text}"
            for rule, found in self.findings.items()
            if self.config.policy(rule) == policy
        ]

    def raise_for_errors(self) -> None:
        """Do nothing if the data passed.

        Raises:
            DataError: names what rules with the policy `error` found, and what to do.
        """
        if self.passed:
            return
        lines = []
        for rule, found in self.findings.items():
            if self.config.policy(rule) == "error":
                lines.append(f"{rule}, {len(found)} found:")
                lines += [f"  {finding.text}" for finding in found[:SHOWN]]
                lines += [f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise DataError(
            f"{self.root}: the data does not pass the gate\n"
            + "\n".join(lines)
            + f"\nCorrect the rows, or leave them out: `cls-data check {self.root} --quarantine FILE` writes a list, "
            "data.quarantine=FILE trains without them. data.gate.RULE=warn lets a rule only speak, though what cannot "
            "be read at all is refused in any case."
        )


def check(
    root: str | os.PathLike[str],
    preprocessing: Preprocessing,
    config: GateConfig | None = None,
    *,
    annotations: str = "",
    quarantine: Quarantine | None = None,
    workers: int = 1,
    progress: bool = False,
) -> CheckReport:
    """Look at every row and every image of a data root.

    Args:
        root: the data root.
        preprocessing: its `decode` says what an image's pixels are.
        config: policies and thresholds; the defaults if None.
        annotations: subfolder of the root that holds the split folders.
        quarantine: rows to leave out.
        workers: processes that decode.
        progress: show a bar.

    Raises:
        DataError: there is nothing to look at, or the quarantine was made for other rows.
    """
    config = config or GateConfig()
    base = Path(root).resolve()
    if quarantine is not None:
        quarantine.refuse_others(annotations)
    scanned = {
        split: scan_split(base, split, annotations=annotations, quarantine=quarantine)
        for split in SPLITS
    }
    records: dict[str, list[Record]] = {split: rows.records for split, rows in scanned.items()}
    bad = [row for rows in scanned.values() for row in rows.bad]
    if not bad and not any(records.values()):
        left = ", of which the quarantine leaves some" if quarantine and quarantine.rows else ""
        raise DataError(
            f"{base / annotations}: no rows; expected *.jsonl files in train/, valid/ or test/{left}"
        )
    evidence = _gather(
        records, bad, preprocessing, workers, "checking images" if progress else None
    )
    digests: dict[str, list[tuple[Record, bytes]]] = {
        split: [
            (row.record, evidence.files.file_digests[row.file])
            for row in evidence.rows
            if row.split == split
        ]
        for split in SPLITS
    }
    return CheckReport(
        base, evidence, config, _judge(evidence, config), fingerprint(digests), preprocessing
    )


def _gather(
    records: Mapping[str, Sequence[Record]],
    bad: Sequence[BadRow],
    preprocessing: Preprocessing,
    workers: int,
    progress: str | None,
) -> GateInputs:
    paths = sorted({record.path for rows in records.values() for record in rows})
    places = {path: place for place, path in enumerate(paths)}
    rows = [
        Row(split, record, places[record.path])
        for split, found in records.items()
        for record in found
    ]
    return GateInputs(
        rows, bad, Inspection.of(paths, preprocessing, workers=workers, progress=progress)
    )


def _judge(
    evidence: GateInputs, config: GateConfig, policies: Sequence[Policy] = ("error", "warn")
) -> dict[str, list[Finding]]:
    findings = {}
    for rule in RULES:
        if config.policy(rule) in policies:
            found = sorted(JUDGES[rule](evidence, config), key=lambda finding: -finding.weight)
            if found:
                findings[rule] = found
    return findings


def _without(evidence: GateInputs, sources: Mapping[str, object]) -> GateInputs:
    return GateInputs(
        [row for row in evidence.rows if row.record.source not in sources],
        [row for row in evidence.bad if row.source not in sources],
        evidence.files,
    )


def _file_and_line(item: tuple[str, object]) -> tuple[str, int]:
    file, _, line = item[0].rpartition(":")
    return file, int(line)
