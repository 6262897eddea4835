"""What an engine is: one way to do the calls of the benchmark.

A peer is imported only when it is measured. Its code is what its users write, with everything that can be made once made
outside of the timed function: generators, buffers, sampler chains, tensors that share the row's memory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from toksample.bench.calls import Call
from toksample.bench.peers import KNOWN_TO_WORK, peer
from toksample.bench.rows import Rows

Timed = Callable[[], Any]
"""Does the call once, and returns something from which `Engine.answer` makes the answer."""


class Engine:
    """One way to do the calls."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions matter; the first one's module must be there."""
    note: ClassVar[str] = ""
    modules: ClassVar[Mapping[str, str]] = {"llama-cpp-python": "llama_cpp"}

    def __init__(self, threads: int) -> None:
        """Use so many threads, where the engine has a way to say so."""
        self.threads = threads

    @classmethod
    def is_installed(cls) -> bool:
        """Whether it can be measured here."""
        return all(importlib.util.find_spec(cls.modules.get(name, name)) is not None for name in cls.packages)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of its packages."""
        return {name: importlib.metadata.version(name) for name in cls.packages}

    @classmethod
    def can(cls, call: Call) -> bool:
        """Whether it can do the call: it has a method for the operation, which takes all of the call's parameters."""
        operation = getattr(cls, call.operation, None)
        if operation is None:
            return False
        try:
            inspect.signature(operation).bind(cls, "rows", **call.params)
        except TypeError:
            return False
        return True

    def prepare(self, call: Call, rows: Rows) -> Timed:
        """Return a function that does the call on these rows: one row as an array of shape (V,), a batch as (B, V).

        A peer does the call once here, untimed, so that a RuntimeError can say if its interface has changed.
        """
        operation, params = getattr(self, call.operation), call.params_for(rows)
        peers = [name for name in self.packages if name in KNOWN_TO_WORK]
        if not peers:
            unchecked: Timed = operation(rows, **params)
            return unchecked
        with peer(*peers):
            timed: Timed = operation(rows, **params)
            self.answer(call, timed())
        return timed

    def answer(self, call: Call, result: Any) -> Any:
        """Return as numpy arrays, or numbers, what the prepared function returned."""
        if call.operation == "top_k" and isinstance(result, list):  # of pairs, one for each row
            return tuple(np.stack(part) for part in zip(*result, strict=True))
        return result


def each_row(one: Callable[[Rows], Any], rows: Rows) -> Timed:
    """Do a call for each row in turn, as one must where there is no call for a batch."""
    if rows.ndim == 1:
        return lambda: one(rows)
    return lambda: [one(row) for row in rows]
