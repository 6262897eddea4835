"""The definition of every function, in numpy.

| file | what it defines |
|---|---|
| `masses.py` | the exact mass of a token, and the total order |
| `edits.py` | what changes the logits first |
| `filters.py` | which tokens survive |
| `adaptive_p.py` | the masses that adaptive-p gives them |
| `drawing.py` | the random words, and the token that a word hits |
| `logprobs.py` | how likely a token is, and its rank |
| `sets.py` | several draws, kept sets and what they say of a token at new logits |
| `functions.py` | the functions of the package |
| `receipts.py` | the check of a receipt |
| `speculation.py` | which tokens of a draft are kept, and what comes after them |

What the compiled kernels return is equal to what is returned here: not close, equal. Nothing here is fast; each function is
short and says what the method is. The one idea is the exact mass:

1. The logits are edited (:func:`edit`): bans, biases and penalties, each of them one rounded operation.
2. A token's probability is an integer, its **mass** (:func:`mass`). Every step of it is one float32 operation that IEEE 754
   rounds correctly, so every machine computes the same integer, and integer sums do not depend on the order.
3. Tokens have a **total order** (:func:`order`): logit descending, then id ascending. The mass never decreases with the
   logit, so every filter keeps an interval of what was kept before it: a filter is a function from the masses of that to the
   place where the interval starts and the place where it stops. Their order is a parameter.
4. The **draw** (:func:`draw_interval`) takes one random 64-bit word, which is a function of seed, stream and position
   (:func:`philox4x64`).
"""

from toksample.reference.adaptive_p import weigh_adaptive_p
from toksample.reference.drawing import Drawn, draw, draw_interval, draw_word, filter_word, philox4x64
from toksample.reference.edits import edit
from toksample.reference.filters import Filters, survivors
from toksample.reference.functions import (
    argmax,
    candidates,
    edited,
    log_softmax,
    mask_logits,
    sample,
    score,
    softmax,
    top_k,
)
from toksample.reference.logprobs import log_probabilities
from toksample.reference.masses import S, mass, order, surprise, weight
from toksample.reference.receipts import verify
from toksample.reference.sets import draw_several, replay
from toksample.reference.speculation import verify_draft

__all__ = [
    "Drawn",
    "Filters",
    "S",
    "argmax",
    "candidates",
    "draw",
    "draw_interval",
    "draw_several",
    "draw_word",
    "edit",
    "edited",
    "filter_word",
    "log_probabilities",
    "log_softmax",
    "mask_logits",
    "mass",
    "order",
    "philox4x64",
    "replay",
    "sample",
    "score",
    "softmax",
    "surprise",
    "survivors",
    "top_k",
    "verify",
    "verify_draft",
    "weigh_adaptive_p",
    "weight",
]
