"""How PyTorch averages the gradients of several processes."""

import inspect
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel


class AveragedGradients(DDPStrategy):
    """Lightning's strategy, with the settings of this app.

    Args:
        has_frozen_layers: Whether some parameters get no gradients; the processes would wait for
            them otherwise.
    """

    def __init__(self, *, has_frozen_layers: bool) -> None:
        super().__init__(
            gradient_as_bucket_view=True,
            find_unused_parameters=has_frozen_layers,
            **_leave_buffers_alone(),
        )

    def _setup_model(self, model: Module) -> DistributedDataParallel:
        # Lightning does this on a stream of its own, which CUDA graphs of a whole step need.
        # The backward pass then warns that gradients are summed on another stream.
        return DistributedDataParallel(
            model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs
        )


def _leave_buffers_alone() -> dict[str, Any]:
    """Return the argument for which PyTorch does not copy buffers in every step.

    `ClassificationModule` averages them when they are used.
    """
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    # torch 2.15 has renamed the argument.
    is_renamed = "forward_sync_buffers" in parameters
    return {"forward_sync_buffers" if is_renamed else "broadcast_buffers": False}
