"""Exceptions of the package."""

from collections.abc import Sequence

MAX_LISTED = 20
"""Findings that one error message lists in full."""


class DataError(ValueError):
    """Data that cannot be used for training. The message names each file and line, and a fix."""

    @classmethod
    def from_findings(cls, summary: str, findings: Sequence[str], advice: str) -> "DataError":
        """Join findings (`file:line: problem`) into one message that lists the first 20."""
        lines = [f"{summary}:"]
        for finding in findings[:MAX_LISTED]:
            lines.append(f"  {finding}")

        num_hidden = len(findings) - MAX_LISTED
        if num_hidden > 0:
            lines.append(f"  … and {num_hidden} more")

        lines.append(advice)
        return cls("\n".join(lines))


class LoaderWorkerError(RuntimeError):
    """A data loader worker process died, for example because memory ran out."""

    @classmethod
    def from_runtime_error(cls, error: RuntimeError) -> "LoaderWorkerError | None":
        """Convert PyTorch's error about a dead worker; return None for any other error.

        PyTorch detects a dead worker in a signal handler (torch 2.15), so its error can surface
        anywhere in the main process.
        """
        if isinstance(error, cls):
            return error
        message = str(error)
        is_dead = "DataLoader worker (pid" in message
        is_out_of_memory = "DataLoader worker" in message and "shared memory" in message
        if not is_dead and not is_out_of_memory:
            return None
        reason = message.strip().splitlines()[-1]  # the lines before are a traceback
        return cls(
            f"A data loader worker process died ({reason}). If memory ran out, lower "
            "data.num_workers: a batch is one gather from memory, so 0 is usually fastest"
        )
