"""Hypothesis profiles and rows that tests share.

The environment variable HYPOTHESIS_PROFILE chooses the profile: `ci` (the default) runs the same examples every time, and
`more` looks for new ones for longer.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from rows import DTYPES, FIXTURES, cast

# There is no deadline, because the reference may take a while for rows of thousands of tokens.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("more", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def real_row():
    """A real row of 262,144 logits, float32. Shared: read-only."""
    row = np.load(FIXTURES / "real_rows.npz")["full"][0].astype(np.float32)
    row.flags.writeable = False
    return row


@pytest.fixture(scope="session")
def real_batch():
    """Six real rows of 32,768 logits each, float32. Shared: read-only."""
    batch = np.load(FIXTURES / "real_rows.npz")["part"].astype(np.float32)
    batch.flags.writeable = False
    return batch


@pytest.fixture(params=DTYPES)
def as_dtype(request):
    """Return a function that casts float32 rows to a type of logits: each type in turn."""
    return lambda rows: cast(rows, request.param)
