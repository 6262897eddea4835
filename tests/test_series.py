"""The series for logarithms and powers, against the functions of the mathematical library."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toksample._series import exp2, ln, log2

integers = st.one_of(st.integers(1, 2**64 - 1), st.integers(0, 63).map(lambda e: 2**e), st.integers(1, 100))
logarithms = pytest.mark.parametrize(("ours", "theirs"), [(ln, math.log), (log2, math.log2)], ids=["ln", "log2"])


def is_near(got, want):
    """Whether a number is within two units in the last place of another one, or of 1 where that is larger."""
    return abs(got - want) <= 4 * 2.0**-53 * max(abs(want), 1)


@logarithms
@given(w=integers)
def test_logarithms(ours, theirs, w):
    assert is_near(ours(w), theirs(w))


@logarithms
def test_logarithms_next_to_powers_of_two(ours, theirs):
    for e in range(1, 64):
        for w in (2**e - 1, 2**e, 2**e + 1):
            assert is_near(ours(w), theirs(w))
    assert ours(1) == 0


@logarithms
def test_logarithms_of_many_integers(ours, theirs):
    for w in range(1, 100_000):
        assert abs(ours(w) - theirs(w)) <= 1e-15 * theirs(w)


@given(x=st.floats(-1000, 1000))
def test_powers(x):
    assert abs(exp2(x) / 2.0**x - 1) <= 1e-15


def test_powers_of_many_numbers():
    for step in range(-200_000, 200_001):
        x = step / 4096
        assert abs(exp2(x) / 2.0**x - 1) <= 1e-15
    assert [exp2(n) for n in (-1000, -1, 0, 1, 41, 1000)] == [2.0**n for n in (-1000, -1, 0, 1, 41, 1000)]
