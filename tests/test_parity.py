"""toksample keeps what other samplers keep, if it applies the filters in their order.

The fixtures have the answers of the other samplers: `make_parity.py` makes them, and docs/parity.md sums up the comparison.
"""

from collections import Counter

import numpy as np
import pytest
from parity import SHOWN, read
from parity_rules import OURS, PEERS, possible

import toksample
from toksample import reference

# How many cases differ, and why. In all other cases toksample keeps the same tokens as the other sampler.
#
# "equal logits": other ones of some equal logits. toksample keeps those with the lower ids. The others cut where their sort
#     has put them, which is an unstable one. In transformers this is so for top_p and for the last of min_tokens_to_keep.
# "rounding of STEP": a sum or a probability is so close to the parameter that the float32 arithmetic of the other sampler
#     decides, or a surprise or a logit so close to another one that they are equal in one of both. `parity_rules.py` computes
#     how close. transformers compares a float32 cumulative sum with 1 - top_p, and float32 probabilities with the thresholds
#     of min_p and epsilon_cutoff.
# "min_tokens_to_keep": transformers has it for beam search only. Its top_k and epsilon_cutoff then keep all that equal the
#     last of these tokens, where toksample keeps exactly so many; its typical_p keeps exactly so many, where toksample keeps
#     all at the same distance from the entropy.
# "open" is no difference: it counts the cases where the rounding of the other sampler could lead to several answers. For all
# others `parity_rules.py` has a single answer, and both samplers give it.
EXPECTED = {
    "transformers": {
        "none": 3143,
        "equal logits": 285,
        "rounding of top_k": 1,
        "rounding of top_p": 10,
        "rounding of min_p": 6,
        "rounding of typical_p": 12,
        "rounding of epsilon_cutoff": 16,
        "rounding of several steps": 25,
        "min_tokens_to_keep": 22,
        "open": 306,
    },
}


def keep(row, params, order):
    """Return of each token whether toksample keeps it, and its probability: the same from the kernels and the reference."""
    ids, probs = toksample.candidates(row, order=order, **params)
    reference_ids, reference_probs = reference.candidates(row, order=order, **params)
    assert (ids == reference_ids).all()
    assert (probs == reference_probs).all()
    kept, every = np.zeros(len(row), bool), np.zeros(len(row))
    kept[ids], every[ids] = True, probs
    return kept, every


def judge(case, peer, order):
    """Return how toksample's answer differs from the peer's, and the steps at which the peer's rounding decides."""
    row, params = case.recipe.row(), case.params
    kept, probs = keep(row, params, order)
    row = reference.edited(row, params)
    theirs = possible(row, PEERS[peer], params)
    choices = theirs.choices
    assert theirs.has(row[case.kept]), f"{peer} keeps what its rule does not keep: {case}"
    if np.array_equal(kept, case.kept):
        shown = np.flatnonzero(kept)[:SHOWN]
        assert np.abs(probs[shown] - case.probs).max() < 1e-5, f"the probabilities differ: {case}"
        return "none", choices
    if np.array_equal(np.sort(row[kept]), np.sort(row[case.kept])):
        return "equal logits", choices
    if theirs.has(row[kept]):
        return f"rounding of {choices[0] if len(choices) == 1 else 'several steps'}", choices
    is_about_fewest = "min_tokens_to_keep" in params and possible(row, OURS[peer], params).has(row[kept])
    assert is_about_fewest, f"toksample keeps what {peer} does not keep: {case}"
    return "min_tokens_to_keep", choices


def compare(peer, order):
    """Count the differences between a peer and toksample with an order."""
    counts = Counter()
    for case in read(peer)[1]:
        difference, choices = judge(case, peer, order)
        counts[difference] += 1
        counts["open"] += bool(choices)
    return counts


@pytest.mark.parametrize("peer", EXPECTED)
def test_parity(peer):
    assert compare(peer, peer) == EXPECTED[peer]


@pytest.mark.parametrize(
    ("peer", "order"),
    [
        ("transformers", ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("temperature", "top_k_with_ties", "top_p_beyond", "min_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("temperature", "top_k_with_ties", "min_p", "top_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("top_k_with_ties", "top_p", "min_p", "typical_p", "epsilon_cutoff", "temperature")),
    ],
)
def test_parity_sees_a_wrong_order(peer, order):
    with pytest.raises(AssertionError, match="toksample keeps what"):
        compare(peer, order)
