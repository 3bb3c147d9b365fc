"""What a caller may want to catch, and how many findings become one message."""

from collections.abc import Sequence

SHOWN = 20


class DataError(ValueError):
    """Data that cannot be trained on as it is. The message names each place and what to do there."""

    @classmethod
    def from_findings(cls, summary: str, findings: Sequence[str], advice: str) -> "DataError":
        """Join findings (`file:line: what`) into one message, the first twenty in full."""
        more = [f"  … and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
        return cls("\n".join([f"{summary}:", *(f"  {line}" for line in findings[:SHOWN]), *more, advice]))
