"""The engines: a file for each, which imports its library only when it is measured, and the list of them all."""

from __future__ import annotations

from toksample.bench.engines.base import Engine
from toksample.bench.engines.llama_cpp import LlamaCpp
from toksample.bench.engines.llguidance import Llguidance
from toksample.bench.engines.numba import Numba
from toksample.bench.engines.numpy import Numpy
from toksample.bench.engines.reference import Reference
from toksample.bench.engines.scipy import Scipy
from toksample.bench.engines.toksample import Toksample, ToksampleAvx2
from toksample.bench.engines.torch import Torch, TorchAllThreads
from toksample.bench.engines.transformers import Transformers
from toksample.bench.engines.xgrammar import Xgrammar

__all__ = ["ENGINES"]

ENGINES: tuple[type[Engine], ...] = (
    Toksample,
    ToksampleAvx2,
    Reference,
    Numpy,
    Scipy,
    Torch,
    TorchAllThreads,
    Transformers,
    LlamaCpp,
    Numba,
    Llguidance,
    Xgrammar,
)
"""All engines, in the order in which help and errors list them."""
