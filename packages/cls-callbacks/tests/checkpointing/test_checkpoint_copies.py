from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cls_callbacks.checkpointing.checkpoint_copies import CheckpointCopier

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)

tensors = st.builds(
    lambda shape, dtype: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from(DTYPES),
)
states = st.recursive(
    tensors | st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def to_plain(value: Any) -> Any:
    """Return a state with lists instead of tensors, for comparisons."""
    if isinstance(value, Tensor):
        return (str(value.dtype), list(value.shape), value.stride(), value.tolist())
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value


def zero(value: Any) -> None:
    """Change everything in a state."""
    if isinstance(value, Tensor):
        value.zero_()
        return
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for item in items:
            zero(item)
        value.clear()


@given(states)
def test_a_copy_has_the_content_of_its_moment(state: Any) -> None:
    before = to_plain(state)
    copy = CheckpointCopier().copy({"state": state})
    zero(state)
    assert to_plain(copy.load()) == {"state": before}


@given(states, states)
def test_a_copier_that_is_used_again_copies_the_new_state(first: Any, second: Any) -> None:
    copier = CheckpointCopier()
    copier.copy({"state": first})
    assert to_plain(copier.copy({"state": second}).load()["state"]) == to_plain(second)


def test_memory_is_used_again() -> None:
    copier = CheckpointCopier()
    state = {"weights": torch.randn(8, 3, 5, 5).to(memory_format=torch.channels_last)}
    first = copier.copy(state).load()["weights"].data_ptr()
    assert copier.copy(state).load()["weights"].data_ptr() == first
    assert copier.copy(state).load()["weights"].stride() == state["weights"].stride()


def test_tensors_that_share_memory_are_copied_once() -> None:
    embedding = nn.Linear(4, 4)
    module = nn.ModuleDict({"one": embedding, "two": embedding})
    state = CheckpointCopier().copy({"state_dict": module.state_dict()}).load()["state_dict"]
    assert state["one.weight"].data_ptr() == state["two.weight"].data_ptr()
    assert isinstance(state, OrderedDict)
    assert state._metadata == module.state_dict()._metadata  # type: ignore[attr-defined]


def test_views_and_sparse_tensors_keep_their_content() -> None:
    base = torch.arange(6.0)
    state = {
        "slice": base[1:4],
        "every second": base[::2],
        "expanded": base[:1].expand(3),
        "sparse": torch.eye(3).to_sparse(),
    }
    copier = CheckpointCopier()
    for _ in range(2):
        copy = copier.copy(state).load()
        for name, tensor in state.items():
            assert torch.equal(copy[name].to_dense(), tensor.to_dense()), name


@pytest.mark.parametrize("modes", [(True, False), (False, True)])
def test_copies_work_in_and_out_of_inference_mode(modes: tuple[bool, ...]) -> None:
    copier = CheckpointCopier()
    for mode in modes:
        with torch.inference_mode(mode):
            state = {"weights": torch.ones(3)}
            copy = copier.copy(state)
        assert torch.equal(copy.load()["weights"], torch.ones(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_that_is_queued_later_on_a_gpu_does_not_change_a_copy() -> None:
    weights = torch.ones(4_000_000, device="cuda")
    torch.cuda._sleep(50_000_000)  # the copy cannot have begun when it returns
    copy = CheckpointCopier().copy({"weights": weights})
    weights.zero_()
    copied = copy.load()["weights"]
    assert copied.is_pinned()
    assert bool((copied == 1).all())
