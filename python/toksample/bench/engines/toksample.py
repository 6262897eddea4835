"""toksample itself, with the instruction set in use and with AVX2."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import toksample
from toksample.bench.engines.base import Engine, Timed
from toksample.bench.rows import Rows


class Toksample(Engine):
    """toksample itself."""

    name = "toksample"
    packages = ("toksample",)

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._package: Any = toksample

    def argmax(self, rows: Rows) -> Timed:
        argmax = self._package.argmax
        return lambda: argmax(rows, num_threads=self.threads)

    def softmax(self, rows: Rows) -> Timed:
        softmax, out = self._package.softmax, np.empty(rows.shape, np.float32)
        return lambda: softmax(rows, out=out, num_threads=self.threads)

    def top_k(self, rows: Rows, k: int) -> Timed:
        top_k = self._package.top_k
        return lambda: top_k(rows, k, num_threads=self.threads)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        sample, position = self._package.sample, iter(range(2**62))
        if rows.ndim > 1:
            params["num_threads"] = self.threads
        return lambda: sample(rows, seed=1, position=next(position), **params)


class ToksampleAvx2(Toksample):
    """toksample as it is on a CPU that has AVX2 and nothing wider. It is measured where the CPU has more."""

    name = "toksample-avx2"
    note = "a second copy of toksample in the same process, which is told to use AVX2"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._package = second_copy("avx2")

    @classmethod
    def is_installed(cls) -> bool:
        return "avx2" in toksample.available_isas() and toksample.isa() != "avx2"


@functools.cache
def second_copy(isa: str) -> ModuleType:
    """Import toksample once more, with another instruction set.

    toksample chooses its instruction set when its compiled module is loaded, once for each process. A module that is loaded
    from a copy of the file is another module, and it chooses again. So both can be timed in the same rounds.
    """
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # Windows does not delete a file that is loaded
    with folder, _set_apart(sys.modules, _is_ours), _set_apart(os.environ, _is_choice):
        shutil.copytree(Path(toksample.__file__).parent, Path(folder.name, "toksample"))
        os.environ["TOKSAMPLE_ISA"] = isa
        sys.path.insert(0, folder.name)
        importlib.invalidate_caches()
        try:
            return importlib.import_module("toksample")
        finally:
            sys.path.remove(folder.name)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "toksample"


def _is_choice(variable: str) -> bool:
    return variable == "TOKSAMPLE_ISA"


@contextlib.contextmanager
def _set_apart(mapping: MutableMapping[str, Any], is_meant: Callable[[str], bool]) -> Iterator[None]:
    """Take the entries with some names out of a mapping, and put them back at the end in place of those that came since."""

    def take() -> dict[str, Any]:
        return {name: mapping.pop(name) for name in [*mapping] if is_meant(name)}

    entries = take()
    try:
        yield
    finally:
        take()
        mapping.update(entries)
