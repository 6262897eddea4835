"""Reads GGUF files, the format of llama.cpp: their metadata, and their tensors, which are expanded to float32.

The ``gguf`` package, which knows the quantised formats, is not imported before a file is opened.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toksample._extras import import_extra

__all__ = ["Floats", "GGUFFile"]

Floats = NDArray[np.float32]

DEQUANTIZE_ROWS = 8192  # rows to expand at a time, which limits the temporary memory and lets progress be reported


class GGUFFile:
    """A GGUF file: `metadata` by key, and tensors by name.

    `gguf.GGUFReader` reads these files too, but creates an array object for each token, score and type of Gemma's vocabulary
    of 262,144. That takes 12 seconds. This class takes 0.3 seconds, and 2 more for the weights.
    """

    # The types of values, which GGUF numbers from 0 to 12: numpy's names, except for two.
    VALUE_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "string", "array", "u8", "i8", "f8")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        gguf = import_extra("gguf", "demo", "reading a GGUF file")
        self._formats: Any = gguf.GGMLQuantizationType
        self._quants: Any = gguf.quants
        with open(path, "rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._position = 0
        if bytes(self._take(4)) != b"GGUF" or self._integer(4) not in (2, 3):
            raise ValueError(f"the model must be a GGUF file of version 2 or 3, got {os.fspath(path)!r}")
        tensor_count, value_count = self._integer(8), self._integer(8)
        self.metadata = {self._string(): self._value(self._integer(4)) for _ in range(value_count)}
        tensors = []
        for _ in range(tensor_count):
            name = self._string()
            sizes = [self._integer(8) for _ in range(self._integer(4))]  # the first size is the length of a row
            tensors.append((name, sizes, self._formats(self._integer(4)), self._integer(8)))
        alignment = self.metadata.get("general.alignment", 32)
        start = -(-self._position // alignment) * alignment
        self._tensors = {name: (sizes, kind, start + offset) for name, sizes, kind, offset in tensors}
        self.size = sum(math.prod(sizes) for sizes, _, _ in self._tensors.values())  # floats in all tensors

    def floats(self, name: str, progress: Callable[[int], None]) -> Floats:
        """Expand one tensor to (columns,) or (rows, columns). `progress` is called with the number of floats just done."""
        (columns, *rest), kind, first = self._tensors[name]
        rows = math.prod(rest)
        row_bytes = self._quants.quant_shape_to_byte_shape((columns,), kind)[0]
        raw = np.frombuffer(self._bytes, np.uint8, rows * row_bytes, first).reshape(rows, row_bytes)
        out = np.empty((rows, columns), np.float32)
        for row in range(0, rows, DEQUANTIZE_ROWS):
            block = slice(row, row + DEQUANTIZE_ROWS)
            out[block] = self._quants.dequantize(raw[block], kind)
            progress(out[block].size)
        return out if rest else out[0]

    def _take(self, size: int) -> memoryview:
        self._position += size
        if self._position > len(self._bytes):
            raise ValueError("the model file is cut short in its header")
        return self._bytes[self._position - size : self._position]

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _numbers(self, dtype: str, count: int) -> NDArray[Any]:
        little = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self._take(count * little.itemsize), little).copy()  # a view would keep the file open

    def _string(self) -> str:
        return str(self._take(self._integer(8)), "utf-8")

    def _value(self, kind: int) -> Any:
        name = self.VALUE_TYPES[kind]
        if name == "string":
            return self._string()
        if name != "array":
            return self._numbers(name, 1)[0].item()
        item, count = self.VALUE_TYPES[self._integer(4)], self._integer(8)
        return [self._string() for _ in range(count)] if item == "string" else self._numbers(item, count)
