"""The rows that the benches run on: real ones from the test fixtures, and made ones with the same statistics."""

from pathlib import Path

import numpy as np

from toksample.bench.rows import make_row, make_rows

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "real_rows.npz"


def real(name):
    row = np.ascontiguousarray(np.load(FIXTURE)[name], np.float32)
    return row[0] if len(row) == 1 else row


# Every case is measured on each of these. The row `real` has 262,144 logits, and `real 6` is a batch of rows with 32,768
# logits.
ROWS = {
    "real": lambda: real("full"),
    "real 6": lambda: real("part"),
    "peaked": lambda: make_row("python", 262_144),
    "flat": lambda: make_row("chat", 262_144),
    "made 8": lambda: make_rows(32_000, 8),
}
