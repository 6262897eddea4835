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
from toksample import Sampler, reference
from toksample._orders import ORDERS

# How many cases differ, and why. In all other cases toksample keeps the same tokens as the other sampler.
#
# "equal logits": the other sampler keeps other ones of some equal logits. toksample keeps those with the lower ids. The others
#     cut them as an unstable sort has put them: transformers for top_p, top_h and min_tokens_to_keep, llama.cpp for all.
# "rounding of STEP": a sum or a probability is so close to the parameter that the float32 arithmetic of the other sampler
#     decides, or a surprise or a logit so close to another one that one of the samplers takes them for equal.
#     `parity_rules.py` computes how close they are. transformers compares a float32 cumulative sum with 1 - top_p, from the
#     least probable token upwards, and llama.cpp one with top_p, from the most probable one downwards. For min_p and
#     epsilon_cutoff transformers compares float32 probabilities, and llama.cpp compares logits for min_p. For top_n_sigma
#     toksample itself rounds the logits to 1/1024. For top_h most of these rows have an entropy of 0 in float32.
# "rule of min_tokens_to_keep": transformers has it for beam search only. Its top_k, epsilon_cutoff and eta_cutoff then keep
#     all that equal the last of these tokens, where toksample keeps exactly so many; its typical_p keeps exactly so many,
#     where toksample keeps all at the same distance from the entropy.
# "rule of typical_p": llama.cpp keeps only as many of the tokens at the last distance as it takes, where toksample keeps all
#     of them. It also goes on until the sum is more than typical_p, not at least.
# "rule of mirostat_v2": if even the first token has a surprise of more than mu, llama.cpp keeps one token, and toksample all
#     that equal it.
# "open" is no difference: it counts the cases where the rounding of the other sampler could lead to several answers, or where
#     it may keep any of several tokens at the same distance from the entropy. For each other case `parity_rules.py` has a
#     single answer, up to equal logits, and both samplers give it, unless the rule of one parameter is another one.
KNOWN = {"transformers": ("min_tokens_to_keep",), "llama.cpp": ("typical_p", "mirostat_v2")}
"""The parameters for which toksample has a rule of its own for equal logits."""

EXPECTED = {
    "transformers": {
        "none": 5255,
        "equal logits": 446,
        "rounding of top_h": 48,
        "rounding of top_k": 2,
        "rounding of top_p": 8,
        "rounding of min_p": 5,
        "rounding of typical_p": 15,
        "rounding of epsilon_cutoff": 13,
        "rounding of several steps": 23,
        "rule of min_tokens_to_keep": 25,
        "open": 493,
    },
    "llama.cpp": {
        "none": 4594,
        "equal logits": 354,
        "rounding of top_n_sigma": 12,
        "rounding of top_p": 41,
        "rounding of min_p": 13,
        "rounding of typical_p": 28,
        "rounding of xtc_threshold": 9,
        "rounding of several steps": 7,
        "rule of typical_p": 206,
        "rule of mirostat_v2": 46,
        "open": 578,
    },
}


def keywords(case):
    """Return the parameters of a case as toksample takes them: JSON, which the fixture is written in, has no such keys."""
    params = dict(case.params)
    if "xtc_threshold" in params:
        params["xtc_probability"] = 1.0
    for version in (1, 2):
        if f"mirostat_v{version}" in params:
            params |= {"mirostat": version, "mirostat_mu": params.pop(f"mirostat_v{version}")}
    if "adaptive_past" in params:  # how many equal logits each of the last tokens was drawn from
        sampler = Sampler(**{name: params[name] for name in ("adaptive_target", "adaptive_decay") if name in params})
        for count in params.pop("adaptive_past"):
            sampler(np.zeros(count, np.float32))
        params["adaptive_average"] = sampler.adaptive_average
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
    theirs = possible(row, PEERS[peer], case.params)
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
    known = [
        name for name in KNOWN[peer] if name in case.params and possible(row, OURS[peer], case.params).has(row[kept])
    ]
    assert known, f"toksample keeps what {peer} does not keep: {case}"
    return f"rule of {known[0]}", choices


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
    ("peer", "changes"),
    [
        ("transformers", {"top_k_with_ties": "top_k"}),
        ("transformers", {"top_p": "top_p_beyond"}),
        ("transformers", {"top_p": "min_p", "min_p": "top_p"}),
        ("transformers", {"temperature": "top_p", "top_p": "temperature"}),
        ("llama.cpp", {"top_k": "top_k_with_ties"}),
        ("llama.cpp", {"top_p": "top_p_beyond"}),
        ("llama.cpp", {"top_p": "min_p", "min_p": "top_p"}),
        ("llama.cpp", {"temperature": "top_p", "top_p": "temperature"}),
    ],
)
def test_parity_sees_a_wrong_order(peer, changes):
    order = [changes.get(step, step) for step in ORDERS[peer]]
    with pytest.raises(AssertionError, match="toksample keeps what"):
        compare(peer, order)
