"""The orders in which the edits, the temperature and the filters are applied, by name.

The orders of other systems follow transformers 5.24, vLLM 0.33, SGLang's PyTorch code, and llama.cpp and mlx-lm from 2026.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from toksample._text import show

__all__ = ["EDITS", "ORDERS", "STEPS", "SWITCHES", "edits", "steps"]

_DEFAULT = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "top_a"),
    *("eta_cutoff", "top_n_sigma", "tfs", "top_h", "xtc", "mirostat", "adaptive_p"),
)

EDITS = {
    "logit_bias": "logit_bias",
    "sequence_bias": "sequence_bias",
    "encoder_repetition_penalty": "encoder_repetition_penalty",
    "repetition_penalty": "repetition_penalty",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "dry": "dry_multiplier",
    "exponential_decay_length_penalty": "exponential_decay_length_penalty",
}
"""The steps that edit logits, in the default order, and the parameter that each applies."""

STEPS = {name: name for name in _DEFAULT} | {
    "xtc": "xtc_probability",
    "adaptive_p": "adaptive_target",
    "top_k_with_ties": "top_k",
    "top_p_beyond": "top_p",
}
"""The temperature and the filters, and the parameter that each applies."""

SWITCHES = {"dynatemp_range": "temperature"}
"""Other parameters that switch something on, and the steps that apply them."""

ORDERS = {
    "toksample": _DEFAULT,
    # `_get_logits_processor` of generation/utils.py. TopKLogitsWarper drops the logits below the k-th largest, so that all
    # that tie with it stay.
    "transformers": (
        *("temperature", "top_h", "top_k_with_ties", "top_p", "min_p", "typical_p"),
        *("epsilon_cutoff", "eta_cutoff"),
    ),
    # `Sampler.sample` of v1/sample/sampler.py: the logits processors, of which min_p is one, come before
    # `apply_top_k_top_p`. Its PyTorch code keeps all that tie with the k-th largest, and its Triton kernel exactly k.
    "vllm": ("temperature", "min_p", "top_k_with_ties", "top_p"),
    # `top_k_top_p_min_p_sampling_from_probs_torch` of srt/layers/sampler.py. top_k and top_p look at the same probabilities,
    # which are not normalized again between them: the same as top_p first, followed by the k largest of what it keeps. A token
    # is dropped if the sum of those before it is more than p, so where the sum is exactly p one more stays. Exactly k stay.
    # `apply_logits_bias` of srt/sampling/sampling_batch_info.py has the edits: the penalties that are subtracted come first,
    # then the one that scales, and then the bias.
    "sglang": (
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias"),
        *("temperature", "top_p_beyond", "top_k", "min_p"),
    ),
    # `common_params_sampling` of common/common.h, as far as toksample has the samplers. The filters come before the
    # temperature, and see the probabilities at temperature 1. Exactly k stay. Mirostat takes the place of all but the
    # temperature there, and adaptive-p is not among the samplers that are on by default.
    "llama.cpp": (
        *("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"),
        *("mirostat", "adaptive_p"),
    ),
    # `make_logits_processors` and `make_sampler` of mlx_lm/sample_utils.py. The filters see the probabilities at temperature 1
    # here too. Exactly k stay.
    "mlx-lm": (
        *("logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty"),
        *("top_p", "min_p", "xtc", "top_k", "temperature"),
    ),
}
"""The orders that have a name: those of other systems, and that of toksample, which is the default.

One that names no edits leaves them in the default order.
"""


def steps(order: object) -> tuple[str, ...]:
    """Read the parameter ``order``: the name of an order, or its steps."""
    if order is None:
        return ORDERS["toksample"]
    if isinstance(order, str) and order in ORDERS:
        return ORDERS[order]
    rule = f"order must be one of {', '.join(map(repr, ORDERS))}, or a sequence of steps"
    if isinstance(order, str):
        raise ValueError(f"{rule}, got {show(order)}")
    if not isinstance(order, Sequence) or isinstance(order, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{rule}, got {show(order)}")
    result = tuple(order)
    for step in result:
        if not isinstance(step, str) or step not in EDITS | STEPS:
            raise ValueError(f"order must have steps among {', '.join(EDITS | STEPS)}, got {show(step)}")
    for before, step in itertools.pairwise(result):
        if before in STEPS and step in EDITS:
            rule = "have its edits before the temperature and the filters"
            raise ValueError(f"order must {rule}, got {step} after {before} in {show(result)}")
    applied = [(EDITS | STEPS)[step] for step in result]
    for name in applied:
        if applied.count(name) > 1:
            raise ValueError(f"order must apply each parameter once, got {name} twice in {show(result)}")
    return result


def edits(order: Sequence[str]) -> tuple[str, ...]:
    """Give all edits as an order applies them: those that it does not name come first, in the default order."""
    named = [step for step in order if step in EDITS]
    return (*(step for step in EDITS if step not in named), *named)
