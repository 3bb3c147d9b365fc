"""Random streams of augmentation parameters."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cls_data.loading.batches import BatchShare

Values = NDArray[np.floating[Any]]


class ParamSampler:
    """Draws parameters for the B samples of a batch from one named random stream.

    Every op has its own stream of the batch's seed, so adding, removing, or changing an op does not
    affect the parameters of another one. Results are NumPy arrays, because an operation on 64
    numbers takes PyTorch five times as long.

    Args:
        num_samples: B, the samples of this process.
        seed: Seed of the batch.
        stream: Name of the stream.
        share: Set if several devices share the batch. Parameters are then drawn for the whole
            batch from its seed, and those of the samples of this process are returned.
    """

    def __init__(
        self, num_samples: int, seed: int, stream: str, share: BatchShare | None = None
    ) -> None:
        self._num_samples = num_samples
        self._rows = slice(None)
        if share is not None:
            self._num_samples = share.num_samples
            self._rows = share.rows
            seed = share.seed
        stream_number = int.from_bytes(stream.encode(), "little")
        self._rng = np.random.default_rng((seed, stream_number))

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = ()) -> Values:
        """Draw float32 [B, *shape] between low and high."""
        size = (self._num_samples, *shape)
        values: Values = self._rng.random(size, np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values[self._rows]

    def symmetric(self, limit: float) -> Values:
        """Draw float32 [B] between -limit and limit."""
        return self.uniform(-limit, limit)

    def log_uniform(self, low: float, high: float) -> Values:
        """Draw float32 [B], uniform on a log scale: halving is as likely as doubling."""
        exponents = self.uniform(math.log(low), math.log(high))
        return np.exp(exponents)

    def bernoulli(self, probability: float) -> NDArray[np.bool_]:
        """Draw bool [B], true with the given probability."""
        return self.uniform(0, 1) < probability

    def beta(self, alpha: float) -> Values:
        """Draw float32 [B] from Beta(alpha, alpha)."""
        values = self._rng.beta(alpha, alpha, self._num_samples)
        return values[self._rows].astype(np.float32)

    def permutation(self) -> NDArray[np.int64]:
        """Draw a permutation of the samples: int64 [B].

        Raises:
            ValueError: Several devices share the batch: a sample's partner may be on another one.
        """
        if self._rows != slice(None):
            raise ValueError("a batch that several devices share cannot be permuted")
        return self._rng.permutation(self._num_samples)

    def seeds(self) -> NDArray[np.int64]:
        """Draw int64 [B], seeds for other generators."""
        return self._rng.integers(2**62, size=self._num_samples)[self._rows]
