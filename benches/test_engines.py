"""Runs every call of `toksample bench` with every engine that is installed, on real and on made rows, and checks each answer.

pytest-benchmark groups the results by call and rows, so that toksample stands beside the others and beside `np.max`.
"""

import re

import numpy as np
import pytest
from case_rows import ROWS

from toksample.bench.calls import CALLS, check
from toksample.bench.engines import ENGINES
from toksample.bench.engines.base import Engine
from toksample.bench.peers import KNOWN_TO_WORK
from toksample.bench.rows import make_row

PAIRS = [(engine, call) for call in CALLS for engine in ENGINES if engine.is_installed() and engine.can(call)]
LARGE = [pytest.param(*pair, id=f"{pair[1].name}-{pair[0].name}") for pair in PAIRS if pair[1].vocab is None]
SMALL = [pytest.param(*pair, id=f"{pair[1].name}-{pair[0].name}") for pair in PAIRS if pair[1].vocab is not None]
LARGE_CALLS = [call for call in CALLS if call.vocab is None]


@pytest.fixture(scope="module", params=list(ROWS))
def named_rows(request):
    return request.param, ROWS[request.param]()


def run(benchmark, group, engine, call, rows):
    instance = engine(threads=1)
    benchmark.group = group
    check(call, rows, instance.answer(call, benchmark(instance.prepare(call, rows))))


@pytest.mark.parametrize(("engine", "call"), LARGE)
def test_call(benchmark, engine, call, named_rows):
    name, rows = named_rows
    run(benchmark, f"{call.title} ({name})", engine, call, rows)


@pytest.mark.parametrize(("engine", "call"), SMALL)
def test_small_call(benchmark, engine, call):
    run(benchmark, call.title, engine, call, make_row("news", call.vocab))


@pytest.mark.parametrize("call", LARGE_CALLS, ids=lambda call: call.name)
def test_floor(benchmark, call, named_rows):
    """Put `np.max` into each group, as the time it takes to read the logits once."""
    name, rows = named_rows
    benchmark.group = f"{call.title} ({name})"
    assert benchmark(np.max, rows) == rows.max()


@pytest.mark.parametrize("when", ["prepared", "called"])
def test_a_peer_that_has_changed(monkeypatch, when):
    """The error names the version in use and those known to work."""

    class Changed(Engine):
        name = "changed"
        packages = ("numpy",)

        def argmax(self, rows):
            if when == "prepared":
                np.no_longer_there  # noqa: B018
            return lambda: rows["no_longer_there"]

    monkeypatch.setitem(KNOWN_TO_WORK, "numpy", "0.1, 0.2")
    call = next(call for call in CALLS if call.operation == "argmax")
    tried = f"the benchmark does not work with numpy {np.__version__} (known to work: 0.1, 0.2): "
    error = "AttributeError: module 'numpy' has no attribute" if when == "prepared" else "KeyError: 'no_longer_there'"
    with pytest.raises(RuntimeError, match="^" + re.escape(tried + error)):
        Changed(threads=1).prepare(call, {"a": 1})
