"""Read npz files that may be damaged or come from somebody else."""

import io
import math
import os
import struct
import sys
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from cls_data.errors import DataError
from cls_export.contract.files import read_bytes

MAX_BYTES = 4 * 1024**3
"""Largest size of a file, and of all its arrays together: 1,000,000 images of 1,000 classes."""

_ALLOWED_KINDS = "biufU"
_SUFFIX = ".npy"


def read_npz(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file.

    Every size that the file states is checked before memory is taken for it, because a few
    kilobytes can claim to hold terabytes. Pickled objects are refused.

    Raises:
        DataError: The file is missing, damaged, no regular file, or holds more than `max_bytes`.
    """
    content = read_bytes(path, error=DataError, max_bytes=max_bytes)
    return parse_npz(content, str(path), max_bytes=max_bytes)


def parse_npz(content: bytes, name: str, *, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file with some content, with the checks of `read_npz`.

    Raises:
        DataError: The content is damaged, or holds more than `max_bytes`. The message names `name`.
    """
    try:
        return _read_arrays(content, max_bytes)
    except Exception as error:  # zipfile and numpy raise many kinds of errors for a damaged file
        reason = str(error) or type(error).__name__
        raise DataError(f"{name}: cut short, damaged, or not an npz file ({reason})") from error


def _read_arrays(content: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > max_bytes:
            raise ValueError(f"{total:,} bytes of arrays; at most {max_bytes:,} are read")

        _check_no_member_is_lost(content, members, archive.start_dir)
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(_SUFFIX)
            if name == member.filename or name in arrays:
                raise ValueError(f"unexpected member {member.filename!r}")
            arrays[name] = _read_array(archive, member)
        return arrays


def _check_no_member_is_lost(
    content: bytes, members: list[zipfile.ZipInfo], directory: int
) -> None:
    """Check that the members lie one after the other, from the first byte to the directory.

    A damaged directory can end early, and `zipfile` does not compare the number of members.
    """
    end = 0
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.header_offset != end:
            break
        name_length, extra_length = struct.unpack_from("<HH", content, end + 26)
        end += 30 + name_length + extra_length + member.compress_size
    if end != directory:
        raise ValueError("an array is missing from the directory")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        shape, is_fortran_order, dtype = _read_header(stream)
        start = stream.tell()
    if dtype.kind not in _ALLOWED_KINDS or dtype.itemsize == 0:
        raise ValueError(f"{member.filename} has dtype {dtype}")

    count = math.prod(shape)
    expected = start + count * dtype.itemsize
    if expected != member.file_size:
        raise ValueError(
            f"{member.filename} states shape {shape} of {dtype}, which needs {expected:,} bytes, "
            f"but has {member.file_size:,}"
        )

    data = archive.read(member)  # to its end, so that its checksum is verified
    # Through a bytearray, so that the array can be written, as PyTorch expects.
    values = np.frombuffer(bytearray(data), np.uint8, offset=start).view(dtype)
    if dtype.kind == "U":
        _check_characters(values, member.filename)
    return values.reshape(shape, order="F" if is_fortran_order else "C")


def _check_characters(values: NDArray[Any], name: str) -> None:
    codes = values.view(np.dtype(np.uint32).newbyteorder(values.dtype.byteorder))
    if codes.max(initial=0) > sys.maxunicode:
        raise ValueError(f"{name} has a character that does not exist")


def _read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(stream)
    raise ValueError(f"unsupported npy version {version}")
