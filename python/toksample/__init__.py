"""An exact and fast token sampler for language models on the CPU.

>>> import numpy as np, toksample
>>> logits = np.array([1.0, 3.0, 2.0, -1.0], dtype=np.float32)
>>> toksample.sample(logits, temperature=0.7, top_p=0.9, seed=1)
1

The same seed gives the same token on every instruction set, in every batch and with any number of threads.
:mod:`toksample.reference` defines the answer of every function in numpy.
"""

import os

from toksample import _native, reference
from toksample._generate import generate
from toksample._generation_config import GenerationConfig
from toksample._logprobs import Sampled
from toksample._native import available_isas, isa
from toksample._parameters import SamplingParams
from toksample._prompt_lookup import PromptLookup
from toksample._receipts import Receipt
from toksample._sampler import Sampler
from toksample._sampling import argmax, candidates, log_softmax, mask_logits, sample, softmax, top_k
from toksample._scores import Scores, score
from toksample._sets import KeptSets, replay
from toksample._speculation import Verified, verify_draft
from toksample._threads import get_num_threads, set_num_threads
from toksample._version import __version__
from toksample.reference import verify

__all__ = [
    "GenerationConfig",
    "KeptSets",
    "PromptLookup",
    "Receipt",
    "Sampled",
    "Sampler",
    "SamplingParams",
    "Scores",
    "Verified",
    "__version__",
    "argmax",
    "available_isas",
    "candidates",
    "generate",
    "get_num_threads",
    "isa",
    "log_softmax",
    "mask_logits",
    "reference",
    "replay",
    "sample",
    "score",
    "set_num_threads",
    "softmax",
    "top_k",
    "verify",
    "verify_draft",
]

_native.look_up_once()
if hasattr(os, "register_at_fork"):
    # No thread may begin or end during a fork: see src/batch.rs.
    os.register_at_fork(
        before=_native.before_fork,
        after_in_parent=lambda: _native.after_fork(False),
        after_in_child=lambda: _native.after_fork(True),
    )
