"""Reads logits from a .npy file. `numpy.lib.format` describes the format.

The file may come from anywhere, so nothing in it is trusted. The header is matched against a grammar and never evaluated as
Python. The logits are read and not mapped into memory, because the process would crash if a mapped file became shorter.
Memory is allocated for the bytes that arrive, not for those that the header announces.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from toksample._text import show

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""The number of bytes that hold the length of the header, for each version of the format."""
_LONGEST_HEADER = 10_000
"""numpy has the same limit. Most headers have 118 bytes."""
_CHUNK = 2**20

_BLANK = rb"[ \t\r\n]*"
_STRING = rb"""(?:'[^'"\\]*'|"[^'"\\]*")"""
_ENTRY = _BLANK + b"(" + _STRING + b")" + _BLANK + b":" + _BLANK + b"(" + _STRING + rb"|True|False|\([^()]*\))" + _BLANK
_HEADER = re.compile(rb"\{" + b",".join([_ENTRY] * 3) + b"(?:," + _BLANK + rb")?\}" + _BLANK)
_SIZE = _BLANK + b"(?:0|[1-9][0-9]{0,17})L?" + _BLANK  # Python 2 wrote an L after some integers
_SHAPE = re.compile(rb"\((?:" + _BLANK + b"|(?:" + _SIZE + b",)+(?:" + _SIZE + b"|" + _BLANK + rb"))\)")
_FLOAT = re.compile(r"[<>=|]?f[248]")
_TWO_BYTES = re.compile(r"([<>=|]?)[Vui]2")


def add_dtype_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--dtype``, whose value is an argument of `read_npy`."""
    bfloat16 = "the file's 2-byte values are bfloat16, which the .npy format has no name for"
    parser.add_argument("--dtype", choices=["bfloat16"], help=bfloat16)


def read_npy(path: str, dtype: str | None = None) -> npt.NDArray[Any]:
    """Read logits of float16, float32 or float64, in either byte order, from a file or a pipe.

    Parameters
    ----------
    path : str
        The name of the file or pipe.
    dtype : {"bfloat16"}, optional
        Says that the file's 2-byte values are bfloat16. The format has no name for this type, so they are stored as raw
        bytes or as integers. The result is then float32, which can hold every bfloat16 value.

    Returns
    -------
    ndarray of float16, float32 or float64, shape (V,) or (B, V)

    Raises
    ------
    ValueError
        If the file cannot be read or does not hold such logits. The message names the file and is meant for users.
    """
    try:
        with open(path, "rb") as file:
            return _read_array(file, dtype)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_array(file: BinaryIO, dtype: str | None) -> npt.NDArray[Any]:
    header = _read_header(file)
    if header is None:
        raise ValueError("the file must hold one array of numbers in .npy format")
    descr, is_fortran, shape = header
    stored = _stored_dtype(descr, dtype)
    if len(shape) not in (1, 2):
        raise ValueError(f"logits must be of shape (V,) or (B, V), got shape {show(shape)}")
    size = stored.itemsize * math.prod(shape)
    data = _read(file, size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else len(data)
        raise ValueError(f"the file must hold {size} bytes of logits, as its header says, got {found}")
    array: npt.NDArray[Any] = np.ndarray(shape, stored, data, order="F" if is_fortran else "C")
    if dtype is None:
        return array
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _read_header(file: BinaryIO) -> tuple[str, bool, tuple[int, ...]] | None:
    """Read the name of the dtype, whether the order is Fortran's, and the shape. Return None if this is not a .npy file."""
    start = bytes(_read(file, len(_MAGIC) + 2))
    length_bytes = _LENGTH_BYTES.get(start[len(_MAGIC) :])
    if not start.startswith(_MAGIC) or length_bytes is None:
        return None
    length = int.from_bytes(_read(file, length_bytes), "little")
    if length > _LONGEST_HEADER:
        return None
    text = _read(file, length)
    match = _HEADER.fullmatch(text)
    if len(text) != length or match is None:
        return None
    parts = match.groups()
    fields = {key[1:-1]: value for key, value in zip(parts[::2], parts[1::2], strict=True)}
    descr, order, shape = (fields.get(key, b"") for key in (b"descr", b"fortran_order", b"shape"))
    if descr[:1] not in (b"'", b'"') or order not in (b"True", b"False") or not _SHAPE.fullmatch(shape):
        return None
    sizes = tuple(int(size) for size in re.findall(rb"[0-9]+", shape))
    return descr[1:-1].decode("latin-1"), order == b"True", sizes


def _stored_dtype(descr: str, dtype: str | None) -> np.dtype[Any]:
    """Return the dtype to read the file with. For bfloat16 it is an integer type, for the bits."""
    two_bytes = _TWO_BYTES.fullmatch(descr)
    if dtype is not None:
        if two_bytes is None:
            raise ValueError(f"for --dtype {dtype}, the file must hold 2-byte integers or raw bytes, got {show(descr)}")
        return np.dtype((two_bytes[1].replace("|", "") or "<") + "u2")  # raw bytes do not say their order
    if _FLOAT.fullmatch(descr):
        return np.dtype(descr)
    hint = "; if these are bfloat16, write --dtype bfloat16" if two_bytes and "V" in descr else ""
    raise ValueError(f"logits must be float32, float16, bfloat16 or float64, got {show(descr)}{hint}")


def _read(file: BinaryIO, size: int) -> bytearray:
    """Read this many bytes, or all that there are."""
    data = bytearray()
    while chunk := file.read(min(size - len(data), _CHUNK)):
        data += chunk
    return data
