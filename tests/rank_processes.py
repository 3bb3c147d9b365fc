"""Start the app in several processes, as torchrun does, with everything imported."""

import os
import signal
import socket
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from forked_app import start


class RankProcesses:
    """The ranks of one run.

    Args:
        arguments: The command line.
        output: Prefix of the files for stdout and stderr of each rank.
        count: Number of ranks.
        per_node: Ranks of one machine; all of them by default.
    """

    def __init__(
        self, arguments: Sequence[str], output: Path, count: int, per_node: int | None = None
    ) -> None:
        self.processes: list[ForkServerProcess] = []
        port = _find_free_port()
        for rank in range(count):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % (per_node or count)),
                "GROUP_RANK": str(rank // (per_node or count)),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(per_node or count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
            }
            file = output.with_name(f"{output.name}-{rank}.out")
            self.processes.append(start(arguments, file, environment=environment))

    def wait(self, seconds: float = 60) -> list[int]:
        """Wait until all have ended, and return their exit codes."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.kill(range(len(codes)))
            raise TimeoutError(f"still running after {seconds} s: exit codes {codes}")
        return [code for code in codes if code is not None]

    def kill(self, ranks: Sequence[int], number: int = signal.SIGKILL) -> None:
        """Send a signal to some ranks that still run."""
        for rank in ranks:
            process = self.processes[rank]
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def is_running(self) -> bool:
        """Whether all ranks run."""
        return all(process.is_alive() for process in self.processes)


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
