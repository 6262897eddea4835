"""Random cases, kernels against reference. `python tests/stress.py` runs as many as you like, with other seeds."""

import dataclasses

import pytest
import stress


def test_random_cases():
    done, failures = stress.check(cases=100_000)
    assert done >= 100_000
    assert not failures, "\n".join([f"{len(failures)} of {done} cases fail", *failures[:10]])


@pytest.mark.parametrize("is_receipt", [False, True])
def test_a_wrong_token_is_a_failure_that_can_be_reproduced(monkeypatch, is_receipt):
    number = 3
    _, logits, _, _ = stress.make_batch(0, number)
    sample = stress.toksample.sample

    def wrong_once(logits, **keywords):
        tokens = sample(logits, **keywords)
        if keywords.get("receipt", False) == is_receipt:
            tokens[5] = dataclasses.replace(tokens[5], start=1, target=1) if is_receipt else -1
        return tokens

    monkeypatch.setattr(stress.toksample, "sample", wrong_once)
    count, failures = stress.check_batch(0, number)
    assert count == len(logits)
    (failure,) = failures
    assert failure.startswith(f"--seed 0 --batch {number}, row 5 ")
