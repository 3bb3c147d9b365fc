"""A network for runs that test everything but the network: it trains, saves, and exports fast.

One run takes half the time of one with the smallest network of torchvision, whose export alone
takes longer than all the rest.
"""

from torch import Tensor, nn

TINY_NETWORK = (
    "allow_targets=[tiny_network,rank_faults]",
    "model={_target_: tiny_network.TinyNetwork}",
)
"""Settings of a run with this network. Runs of `apps/train` itself need `tests` on PYTHONPATH."""

LARGE_CHECKPOINTS = (*TINY_NETWORK, "model.hidden_units=16384")
"""Checkpoints of 5 MB, larger than all other files."""


class TinyNetwork(nn.Module):
    """Two convolutions with batch normalization, a hidden layer, and dropout before the head.

    Args:
        num_classes: Number of logits.
        dropout: Dropout rate.
        hidden_units: Size of the hidden layer. A checkpoint takes about 300 bytes per unit.
    """

    def __init__(self, num_classes: int, dropout: float = 0.0, hidden_units: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, stride=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, hidden_units),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.fc = nn.Linear(hidden_units, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [N, 3, H, W] to logits float32 [N, num_classes]."""
        logits: Tensor = self.fc(self.features(images))
        return logits
