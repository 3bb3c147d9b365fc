"""What a caller may want to catch, and how many findings become one message."""

from collections.abc import Sequence

SHOWN = 20


class DataError(ValueError):
    """Data that cannot be trained on as it is. The message names each place and what to do there."""

    @classmethod
    def from_findings(cls, summary: str, findings: Sequence[str], advice: str) -> "DataError":
        """Join findings (`file:line: what`) into one message, the first twenty in full."""
        more = [f"  … and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
        return cls(
            "\n".join([f"{summary}:", *(f"  {line}" for line in findings[:SHOWN]), *more, advice])
        )


class LoaderWorkerError(RuntimeError):
    """A loader process died, such as for want of memory."""

    @classmethod
    def recognized(cls, error: RuntimeError) -> "LoaderWorkerError | None":
        """Return PyTorch's word of it under this name, with what to do; None for any other error.

        PyTorch notices by a signal (torch 2.15), so that its error may appear wherever the main process is.
        """
        if isinstance(error, cls):
            return error
        if "DataLoader worker" not in str(error):
            return None
        return cls(
            f"a loader process died ({str(error).strip()}). Where memory ran out, lower data.num_workers: a batch is "
            "one gather from memory, so 0 is the fast choice"
        )
