"""toksample keeps what other samplers keep, if it applies the filters in their order.

The fixtures have the answers of the other samplers: `make_parity.py` makes them, and docs/parity.md sums up the comparison.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from parity import SHOWN, read
from parity_rules import OURS, PEERS, possible

import toksample
from toksample import reference

# How many cases differ, and why. In all other cases toksample keeps the same tokens as the other sampler.
#
# "equal logits": the other sampler keeps other ones of some equal logits. toksample keeps those with the lower ids. The others
#     cut them as an unstable sort has put them: transformers for top_p and min_tokens_to_keep, llama.cpp for all filters.
# "rounding of STEP": a sum or a probability is so close to the parameter that the float32 arithmetic of the other sampler
#     decides, or a surprise or a logit so close to another one that one of the samplers takes them for equal.
#     `parity_rules.py` computes how close they are. transformers compares a float32 cumulative sum with 1 - top_p, from the
#     least probable token upwards, and llama.cpp one with top_p, from the most probable one downwards. For min_p and
#     epsilon_cutoff transformers compares float32 probabilities, and llama.cpp compares logits for min_p.
# "rule of min_tokens_to_keep": transformers has it for beam search only. Its top_k and epsilon_cutoff then keep all that equal
#     the last of these tokens, where toksample keeps exactly so many; its typical_p keeps exactly so many, where toksample
#     keeps all at the same distance from the entropy.
# "rule of typical_p": llama.cpp keeps only as many of the tokens at the last distance as it takes, where toksample keeps all
#     of them. It also goes on until the sum is more than typical_p, not at least.
# "open" is no difference: it counts the cases where the rounding of the other sampler could lead to several answers, or where
#     it may keep any of several tokens at the same distance from the entropy. For each other case `parity_rules.py` has a
#     single answer, up to equal logits, and both samplers give it, unless the rule of one parameter is another one.
KNOWN = {"transformers": "min_tokens_to_keep", "llama.cpp": "typical_p"}
"""The parameter for which toksample has a rule of its own for equal logits."""

EXPECTED = {
    "transformers": {
        "none": 4745,
        "equal logits": 299,
        "rounding of top_k": 1,
        "rounding of top_p": 10,
        "rounding of min_p": 6,
        "rounding of typical_p": 14,
        "rounding of epsilon_cutoff": 15,
        "rounding of several steps": 28,
        "rule of min_tokens_to_keep": 22,
        "open": 304,
    },
    "llama.cpp": {
        "none": 3127,
        "equal logits": 364,
        "rounding of top_p": 37,
        "rounding of min_p": 13,
        "rounding of typical_p": 31,
        "rounding of xtc_threshold": 12,
        "rounding of several steps": 3,
        "rule of typical_p": 223,
        "open": 511,
    },
}


def keywords(case):
    """Return the parameters of a case as toksample takes them: JSON, which the fixture is written in, has no such keys."""
    params = dict(case.params)
    if "xtc_threshold" in params:
        params["xtc_probability"] = 1.0
    if "logit_bias" in params:
        params["logit_bias"] = dict(params["logit_bias"])
    if "sequence_bias" in params:
        params["sequence_bias"] = {tuple(ids): bias for ids, bias in params["sequence_bias"]}
    return params


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
    row, params = case.recipe.row(), keywords(case)
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
    is_known = KNOWN[peer] in params and possible(row, OURS[peer], params).has(row[kept])
    assert is_known, f"toksample keeps what {peer} does not keep: {case}"
    return f"rule of {KNOWN[peer]}", choices


def compare(peer, order):
    """Count the differences between a peer and toksample with an order."""
    counts = Counter()
    for case in reversed(read(peer)[1]):  # from the cases with many filters to those with one
        difference, choices = judge(case, peer, order)
        counts[difference] += 1
        counts["open"] += bool(choices)
    return counts


@pytest.mark.parametrize("peer", EXPECTED)
def test_parity(peer):
    assert compare(peer, peer) == EXPECTED[peer]


def test_the_page_has_the_counts():
    page = Path(__file__).parents[1] / "docs" / "parity.md"
    table = [line.strip("| ").split(" | ") for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    (_, *peers), *lines = table
    for peer, *counts in zip(peers, *(line[1:] for line in lines), strict=True):
        on_page = {line[0]: int(count) for line, count in zip(lines, counts, strict=True)}
        differences = {name: count for name, count in EXPECTED[peer].items() if name != "open"}
        assert {name: count for name, count in on_page.items() if count} == differences | {"cases": len(read(peer)[1])}
    assert peers == [*EXPECTED]


@pytest.mark.parametrize(
    ("peer", "order"),
    [
        ("transformers", ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("temperature", "top_k_with_ties", "top_p_beyond", "min_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("temperature", "top_k_with_ties", "min_p", "top_p", "typical_p", "epsilon_cutoff")),
        ("transformers", ("top_k_with_ties", "top_p", "min_p", "typical_p", "epsilon_cutoff", "temperature")),
        ("llama.cpp", ("top_k_with_ties", "typical_p", "top_p", "min_p", "xtc", "temperature")),
        ("llama.cpp", ("top_k", "typical_p", "top_p_beyond", "min_p", "xtc", "temperature")),
        ("llama.cpp", ("top_k", "typical_p", "min_p", "top_p", "xtc", "temperature")),
        ("llama.cpp", ("temperature", "top_k", "typical_p", "top_p", "min_p", "xtc")),
    ],
)
def test_parity_sees_a_wrong_order(peer, order):
    with pytest.raises(AssertionError, match="toksample keeps what"):
        compare(peer, order)
