"""Run a function of fixed tensors again and again, on a GPU as a CUDA graph."""

from collections.abc import Callable

import torch


class Replay:
    """Repeats a function that reads and writes the same tensors at every call.

    On a CUDA device, the function runs once, to record the kernels that it launches, but these do
    not run. Every call then launches all of them at once. On other devices, every call runs the
    function.

    Args:
        function: Must not wait for the device or depend on anything that changes, apart from the
            content of its tensors and the state of PyTorch's random generator.
        device: The device of the tensors.

    Raises:
        RuntimeError: The function waits for the device.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type != "cuda":
            return
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, such as the one that prepares batches.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            function()

    def __call__(self) -> None:
        """Run the function, or launch what it launched."""
        if self._graph is None:
            self._function()
        else:
            self._graph.replay()
