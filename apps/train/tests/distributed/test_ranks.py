"""What ranks tell each other."""

import errno
import os

import pytest

from cls_data import DataError
from cls_train.boundary import explained_errors
from cls_train.distributed.ranks import _pack, _unpack
from cls_train.errors import ConfigError, RunFailedError


class UnpicklableError(ValueError):
    """Its constructor takes other arguments than its message."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def send(error: Exception) -> Exception:
    packed = _pack(error)
    assert packed is not None
    return _unpack(packed)


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, RunFailedError), (errno.ENOENT, ConfigError)]
)
def test_an_error_of_the_first_rank_has_the_same_exit_code_in_the_others(
    number: int, expected: type[Exception]
) -> None:
    error = DataError("the store was not written")
    error.__cause__ = OSError(number, os.strerror(number))
    with pytest.raises(expected, match="the store was not written"), explained_errors():
        raise send(error)


def test_an_error_that_cannot_be_sent_keeps_its_message() -> None:
    received = send(UnpicklableError("one", "other"))
    assert "UnpicklableError: one other" in str(received)


def test_an_error_is_sent_without_a_cause_that_cannot_be() -> None:
    error = DataError("wrong rows")
    error.__cause__ = UnpicklableError("one", "other")
    received = send(error)
    assert isinstance(received, DataError)
    assert received.__cause__ is None
