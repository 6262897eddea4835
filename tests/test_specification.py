"""The specification and the implementation that was written from it: both agree with toksample, and with the known answers."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest
import second_implementation as second
import test_known_answers
from make_known_answers import read_named
from rows import DTYPES, KINDS, LENGTHS, cast, make_filters, make_params, make_rows, make_rules, make_words, one_row

import toksample
from toksample import _series, reference
from toksample._orders import ORDERS
from toksample._parameters import DEFAULTS, NAMES
from toksample.reference import masses

OF_A_SAMPLER = {"mirostat_eta", "adaptive_decay"}
"""The parameters that have no effect on a draw, but on what a Sampler passes to the next one."""

PAGE = (Path(__file__).parent.parent / "docs" / "specification.md").read_text(encoding="utf-8")


# ---- the second implementation -----------------------------------------------------------------------------------------


def test_it_imports_nothing_but_math_and_struct():
    tree = ast.parse(Path(second.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [name.name for node in imports for name in node.names] == ["math", "struct"]


def test_it_has_all_parameters_with_their_defaults():
    assert second.DEFAULTS.keys() | OF_A_SAMPLER == set(NAMES)
    assert ORDERS["toksample"] == second.DEFAULT_ORDER
    for name, default in second.DEFAULTS.items():
        if DEFAULTS[name] is not None:
            assert default == DEFAULTS[name], name


def test_its_float32_operations_are_rounded_once():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, (2, 40_000), dtype=np.uint64).astype(np.uint32)
    bits[1, :20_000] = bits[0, :20_000] + rng.integers(-(2**10), 2**10, 20_000).astype(np.uint32)  # of a similar size
    bits[0, ::7] &= np.uint32(0x807FFFFF)  # subnormal
    bits[1, ::5] = bits[1, ::5] & np.uint32(0x007FFFFF) | np.uint32(0x3F000000)  # near 1
    a, b = bits.view(np.float32)
    with np.errstate(all="ignore"):
        wanted = [a + b, a - b, a * b, a / b]
    for x, y, *want in zip(a.tolist(), b.tolist(), *(one.tolist() for one in wanted), strict=True):
        if np.isfinite(x) and np.isfinite(y) and y != 0:
            got = [second.float32(x + y), second.float32(x - y), second.float32(x * y), second.float32(x / y)]
            assert got == want, (x, y)


def plain(parameters):
    """Return parameters of one row as plain numbers and lists."""
    result = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in parameters.items()}
    if result.get("sequence_bias") is not None:
        pairs = result["sequence_bias"].items()
        result["sequence_bias"] = [(list(ids) if isinstance(ids, tuple) else [ids], bias) for ids, bias in pairs]
    return result


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_gives_the_receipts_of_random_calls(kind):
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    for turn in range(24):
        size, dtype = int(rng.choice(LENGTHS)), DTYPES[turn % 4]
        logits = cast(make_rows(rng, kind, 2, size), dtype)
        params = make_params(rng, logits) if turn % 3 else make_filters(rng, 2, size) | make_rules(rng, 2, size)
        params |= make_words(rng, 2)
        receipts = toksample.sample(logits, **params, receipt=True, errors="mark")
        for b, receipt in enumerate(receipts):
            row, rounded = (
                logits[b].astype(np.float64).tolist(),
                second.float64 if dtype == "float64" else second.float32,
            )
            parameters = plain(one_row(params, b))
            if receipt is None:
                with pytest.raises(second.NoAnswer):
                    second.receipt(row, rounded, **parameters)
            else:
                assert second.receipt(row, rounded, **parameters) == receipt.to_dict(), (dtype, parameters)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("replacement", [True, False])
def test_it_gives_several_draws(kind, replacement):
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    n = 5
    for size in (1, 4, 64, 300):
        logits = make_rows(rng, kind, 2, size)
        params = make_params(rng, logits) | make_words(rng, 2)
        del params["stream"]
        drawn = toksample.sample(logits, **params, n=n, replacement=replacement)
        for b, tokens in enumerate(drawn.tolist()):
            parameters = plain(one_row(params, b))
            seed, position = parameters["seed"], parameters["position"]
            kept = second.survivors(logits[b].tolist(), stream=b * n, **parameters)
            words = [second.random_words(seed, b * n + j, position)[0] for j in range(n)]
            assert second.draw_several(*kept, words, replacement) == tokens, parameters


def make_row(size, seed, span, offset, shift, ban):
    """Make a row of known_answers.txt, as its header says."""
    row = []
    for token in range(size):
        z = (seed + (token + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z = z ^ z >> 31
        n = sum((z >> part) % 2**16 * span >> 16 for part in (0, 16, 32, 48)) - offset
        row.append(-second.INFINITY if (z >> 7) % 16 < ban else math.ldexp(n, -shift))
    return row


def digest(ids, masses):
    h = 0xCBF29CE484222325
    for pair in zip(ids, masses, strict=True):
        for word in pair:
            h = (h ^ word) * 0x100000001B3 % 2**64
    return f"{h:016x}"


@pytest.mark.parametrize("name", list(test_known_answers.ROWS))
def test_it_gives_the_known_answers(name):
    (_, _, *recipe), cases = test_known_answers.ROWS[name]
    row = make_row(*map(int, recipe))
    for case in cases:
        if "with" in case:
            named, *want = case["with"]
            params = read_named(named)
        else:
            temperature, k, p, least, *want = case["keep"]
            params = {"temperature": float(temperature), "top_k": int(k), "top_p": float(p), "min_p": float(least)}
        ids, kept = second.survivors(row, **params)
        assert [str(len(ids)), str(sum(kept)), digest(ids, kept)] == want, params
        assert [f"{token}:{mass}" for token, mass in zip(ids[:6], kept[:6], strict=True)] == case["first"]
        seed, stream, position, *tokens = map(int, case["draw"])
        words = [second.random_words(seed, stream, position + step)[0] for step in range(len(tokens))]
        assert [second.draw(ids, kept, word)[0] for word in words] == tokens


# ---- the page ----------------------------------------------------------------------------------------------------------


def table(title):
    """Return the cells of the first table of a section, without its head."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.split("|")] for line in lines[2:]]


def test_the_constants():
    rows = {name: (decimal, hexadecimal) for name, decimal, hexadecimal, _ in table("Constants")}
    of_toksample = {"S": masses.S, "LOG2_E": masses.LOG2_E, "LN_2": _series.LN_2}
    of_toksample |= {name: getattr(masses, name) for name in ("C1", "C2", "C3", "C4", "C5")}
    for name, (decimal, hexadecimal) in rows.items():
        value = getattr(second, name)
        assert of_toksample.get(name, value) == value
        number, *what = decimal.replace("(", "").replace(")", "").split()
        if what == ["float32"]:
            text, bits = hexadecimal.split(", bits ")
            assert np.float32(number) == np.float32(value) == value == float.fromhex(text), name
            assert np.uint32(int(bits, 16)).view(np.float32) == value, name
        elif what == ["float64"]:
            assert float(number) == value == float.fromhex(hexadecimal), name
        else:
            assert int(number) == value == int(hexadecimal, 16), name
    assert _series.LOG2_E == second.LOG2_E
    constants = {name for name in vars(second) if re.fullmatch(r"[A-Z]\w?\d?|L\w+_[2E]", name)}
    assert constants == set(rows)


def test_the_default_order():
    text = re.search(r"The default order is (.*?)\. ", PAGE, re.DOTALL).group(1)
    assert tuple(re.findall(r"`(\w+)`", text)) == ORDERS["toksample"]


def test_every_parameter_and_step_is_on_the_page():
    words = set(re.findall(r"\w+", PAGE))
    assert words >= second.DEFAULTS.keys() | second.FILTERS.keys() | OF_A_SAMPLER


def test_the_example():
    row, temperature = [1.0, 3.0, 2.0, -1.0, -second.INFINITY], 0.7
    scale = second.float32(second.LOG2_E / temperature)
    assert f"{np.float32(scale)!s} (0x1.07ce9ep+1)" in PAGE
    assert scale == float.fromhex("0x1.07ce9ep+1")
    lines = table("An example")
    assert [int(line[0]) for line in lines] == second.total_order(row)
    for token, *shown in lines:
        x = row[int(token)]
        t = second.float32(second.float32((x - 3.0) * scale) + 4)
        n = round(t)
        mass, surprise = second.weigh(x, 3.0, temperature)
        weight = second.C5
        for c in (second.C4, second.C3, second.C2, second.C1, 1.0):
            weight = second.float32(second.float32(weight * (t - n)) + c)
        assert shown == [
            *(str(np.float32(number)) for number in (x - 3.0, t)),
            str(n),
            *(str(np.float32(number)) for number in (t - n, weight)),
            str(mass),
            str(surprise),
        ]
    _, kept = second.survivors(row, temperature=temperature)
    total, need = sum(kept), math.ceil(0.9 * float(sum(kept)))
    receipt = second.receipt(row, temperature=temperature, top_p=0.9, seed=1, position=2)
    words = [f"0x{word:016x}" for word in second.random_words(1, 0, 2)]
    text = " ".join(PAGE.split("\n## An example\n")[1].split("\n## ")[0].split())
    for shown in (
        f"W = {total} together, and share(0.9) is {need}. Token 1 alone has less, and tokens 1 and 2 have {receipt['total']},",
        f"The words of the position are {words[0]}, {words[1]}, {words[2]} and {words[3]}.",
        f"The first one is {receipt['word']}, and hits",
        f"{receipt['word']} * {receipt['total']} // 2**64 = {receipt['target']}.",
        f"token 2 that from {receipt['start']} to {receipt['stop']}. So token {receipt['token']} is drawn.",
    ):
        assert shown in text
    assert (
        receipt
        == reference.sample(
            np.float32(row), temperature=temperature, top_p=0.9, seed=1, position=2, receipt=True
        ).to_dict()
    )
