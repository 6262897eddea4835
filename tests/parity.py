"""The fixtures parity-*.npz: what other samplers keep of rows that are made from integers.

`make_parity.py` runs the other samplers and writes the fixtures, and `test_parity.py` compares toksample with them. This
module has the rows and the format of the files.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from make_known_answers import make_row
from numpy.typing import NDArray

FIXTURES = Path(__file__).with_name("fixtures")

SHOWN = 8
"""A fixture has the probabilities of at most so many tokens of a case: the first ones, by id, that are kept."""


class Recipe(NamedTuple):
    """The integers that a row is made from: those of `known_answers.txt`, which explains them, and two for peaks."""

    size: int
    seed: int
    span: int
    offset: int
    shift: int
    ban: int = 0
    peaks: int = 0
    height: int = 0

    def row(self) -> NDArray[np.float32]:
        """Return the row. The same integers give the same logits with every version of numpy.

        Some rows have peaks: the ids that are 7, 14, 21 and so on above the seed, modulo the size, rise by the height.
        """
        size, seed, *_, shift, _, peaks, height = self
        row = make_row(*self[:6])
        row[[(seed + 7 * peak) % size for peak in range(1, peaks + 1)]] += np.float32(np.ldexp(height, -shift))
        return row


class Case(NamedTuple):
    """A row, parameters by the names that they have in toksample, and what the other sampler made of them."""

    recipe: Recipe
    params: dict[str, Any]
    kept: NDArray[np.bool_]
    """Of each token, whether the other sampler keeps it."""
    probs: NDArray[np.float32]
    """The probabilities that the other sampler gives to the first SHOWN tokens, by id, that it keeps."""


def write(name: str, peer: str, cases: list[Case]) -> None:
    """Write the fixture of a peer, whose version it records."""
    np.savez_compressed(
        FIXTURES / f"parity-{name}.npz",
        peer=peer,
        recipes=np.array([case.recipe for case in cases], np.int64),
        params=np.frombuffer("\n".join(json.dumps(case.params) for case in cases).encode(), np.uint8),
        kept=np.concatenate([np.packbits(case.kept) for case in cases]),
        probs=np.concatenate([case.probs for case in cases]),
    )


def read(name: str) -> tuple[str, list[Case]]:
    """Return the version of a peer, and its cases."""
    with np.load(FIXTURES / f"parity-{name}.npz") as fixture:
        peer, recipes, packed, shown = str(fixture["peer"]), fixture["recipes"], fixture["kept"], fixture["probs"]
        params = [json.loads(line) for line in fixture["params"].tobytes().decode().splitlines()]
    cases, at, first = [], 0, 0
    for numbers, each in zip(recipes.tolist(), params, strict=True):
        recipe = Recipe(*numbers)
        size = -(-recipe.size // 8)
        kept = np.unpackbits(packed[at : at + size], count=recipe.size).astype(bool)
        count = min(SHOWN, int(kept.sum()))
        cases.append(Case(recipe, each, kept, shown[first : first + count]))
        at, first = at + size, first + count
    return peer, cases
