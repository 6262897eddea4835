"""What an engine is: one way to make the calls of the benchmark.

The library of an engine is imported only when it is measured. An engine uses its library as the users of the library do.
What can be made once is made outside of the timed function: generators, buffers, sampler chains, and tensors that share the
row's memory.
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
"""Makes the call once, and returns something from which `Engine.answer` makes the answer."""


class Engine:
    """One way to make the calls.

    A subclass has a method for each operation that it knows, with the name of the operation. The method takes the rows and the
    parameters of the call, and returns the function to time. Its signature says which parameters the engine knows.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """The distributions that must be installed, and whose versions are reported."""
    note: ClassVar[str] = ""
    """What a reader of the figures should know about the code that was timed."""
    modules: ClassVar[Mapping[str, str]] = {"llama-cpp-python": "llama_cpp"}
    """The modules of those distributions whose modules have another name."""

    def __init__(self, threads: int) -> None:
        """Use this many threads, if the library can be told."""
        self.threads = threads

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its packages are installed."""
        return all(importlib.util.find_spec(cls.modules.get(name, name)) is not None for name in cls.packages)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of its packages."""
        return {name: importlib.metadata.version(name) for name in cls.packages}

    @classmethod
    def can(cls, call: Call) -> bool:
        """Whether it can make the call: it has a method for the operation that takes all parameters of the call."""
        operation = getattr(cls, call.operation, None)
        if operation is None:
            return False
        try:
            inspect.signature(operation).bind(cls, "rows", **call.params)
        except TypeError:
            return False
        return True

    def prepare(self, call: Call, rows: Rows) -> Timed:
        """Return a function that makes the call on these rows: one row as an array of shape (V,), a batch as (B, V).

        A library makes the call once here, without a clock, so that a RuntimeError can say if its interface has changed.
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
        """Return the result of the prepared function as numpy arrays or numbers."""
        if call.operation == "top_k" and isinstance(result, list):  # a pair for each row
            return tuple(np.stack(part) for part in zip(*result, strict=True))
        return result


def each_row(one: Callable[[Rows], Any], rows: Rows) -> Timed:
    """Return a function that makes the call for each row in turn, for a library that has no call for a batch."""
    if rows.ndim == 1:
        return lambda: one(rows)
    return lambda: [one(row) for row in rows]
