"""The versions of the libraries beside which toksample is measured, and the error for a library that has changed."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator

KNOWN_TO_WORK = {
    "gguf": "0.19.0",
    "llama-cpp-python": "0.3.36",
    "llguidance": "1.9.1",
    "numba": "0.68.1",
    "scipy": "1.17.1",
    "torch": "2.15.0",
    "transformers": "5.23.0, 5.24.0",
    "xgrammar": "0.2.8",
}
"""The versions of the peers with which the benchmarks have been run."""


@contextlib.contextmanager
def peer(*packages: str) -> Iterator[None]:
    """Run code that uses these packages, and name the versions that are known to work if it fails.

    Only errors that a changed interface explains are replaced, by a RuntimeError.
    """
    try:
        yield
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        tried = (
            f"{name} {importlib.metadata.version(name)} (known to work: {KNOWN_TO_WORK[name]})" for name in packages
        )
        why = f"{type(error).__name__}: {error}"
        raise RuntimeError(f"the benchmark does not work with {', '.join(tried)}: {why}") from error
