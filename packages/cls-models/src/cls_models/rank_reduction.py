"""Combine tensors of the ranks of a distributed training. With one rank, nothing changes."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed, nn


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks; a new tensor if there are several."""
    if not _is_distributed():
        return tensor
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total


def scale_to_joint_mean(mean: Tensor, divisor: Tensor) -> Tensor:
    """Scale the mean of each rank so that their mean over ranks is the mean over all samples.

    Args:
        mean: A sum over this rank's samples, divided by `divisor`; a scalar.
        divisor: Number of samples of this rank, or the sum of their weights; a scalar.
    """
    if not _is_distributed():
        return mean
    average = sum_over_ranks(divisor) / distributed.get_world_size()
    return mean * (divisor / average)


def average_buffers(names: Iterable[str], state: dict[str, Tensor]) -> None:
    """Replace floating-point tensors of a state dict by their means over all ranks.

    Each rank updates the running statistics of batch normalization with its own images. Their mean
    over the ranks is what a rank would have that saw the mean of these statistics at every step,
    because the updates are linear.

    Args:
        names: The tensors; the same on all ranks.
        state: Maps names to tensors; changed in place, its tensors are not.
    """
    if not _is_distributed():
        return
    floats = [name for name in names if state[name].is_floating_point()]
    if not floats:
        return
    flat = torch.cat([state[name].detach().float().flatten() for name in floats])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()

    start = 0
    for name in floats:
        original = state[name]
        values = flat[start : start + original.numel()]
        state[name] = values.view_as(original).to(original.dtype)
        start += original.numel()


@torch.no_grad()
def average_module_buffers(module: nn.Module) -> None:
    """Set the floating-point buffers of a module to their means over all ranks."""
    buffers = dict(module.named_buffers())
    averages = dict(buffers)
    average_buffers(buffers, averages)
    for name, buffer in buffers.items():
        if averages[name] is not buffer:
            buffer.copy_(averages[name])


def gather_rows(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """Concatenate the rows of all ranks on the first one, rank by rank.

    Args:
        tensors: Tensors with as many rows as this rank has, which may differ from rank to rank.

    Returns:
        The tensors with the rows of all ranks; None on the other ranks.
    """
    if not _is_distributed():
        return list(tensors)
    counts = _gather_counts(len(tensors[0]), tensors[0].device)
    gathered = []
    for tensor in tensors:
        parts = _gather_padded(tensor, counts)
        if parts is not None:
            gathered.append(torch.cat(parts))
    return gathered or None


def _gather_counts(count: int, device: torch.device) -> list[int]:
    own = torch.tensor([count], device=device)
    counts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, own)
    return [int(each) for each in counts]


def _gather_padded(tensor: Tensor, counts: Sequence[int]) -> list[Tensor] | None:
    """Gather on the first rank. All ranks must send equally many rows."""
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor

    if distributed.get_rank() > 0:
        distributed.gather(padded)
        return None
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.gather(padded, parts)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def _is_distributed() -> bool:
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    return distributed.get_world_size() > 1
