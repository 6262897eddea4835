"""Tests of the command `toksample bench`: its figures, files and errors, and the statistics of the rows that it makes."""

import argparse
import json
import math
import os
import sys

import numpy as np
import pytest

import toksample
from toksample._parameters import RULES
from toksample.bench import command, runner
from toksample.bench.calls import CALLS, check, may_be_drawn
from toksample.bench.engines import ENGINES
from toksample.bench.engines.base import Engine
from toksample.bench.engines.numpy import Numpy
from toksample.bench.engines.toksample import Toksample, second_copy
from toksample.bench.report import from_json, table, to_json
from toksample.bench.rows import KINDS, make_row, make_rows
from toksample.bench.runner import LONG, SHORT, Case, measure, time_in_turn


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return command.run(parser.parse_args(arguments))


NUCLEI = [(1, 1, 6), (10, 132, 3140), (65, 215, 823), (204, 1414, 8216), (93, 4263, 48963)]
QUICK = ("--quick", "--rounds", "2", "--seconds", "0.01", "--vocab", "512", "--engines", "toksample,numpy")


def test_a_table_with_every_engine_beside_np_max(capsys):
    assert run(*QUICK, "--calls", "argmax,top_k+top_p,16-logits") == 0
    out, err = capsys.readouterr()
    assert err == ""  # progress is shown on a terminal only
    for text in (
        "V = 512, 1 row, 1 thread",
        "V = 16, 1 row, 1 thread",
        "x np.max",
        "x toksample",
        "versions: toksample ",
    ):
        assert text in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("    ")].count("toksample") == 3


def test_the_json_holds_what_the_table_says(tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert run(*QUICK, "--calls", "top_p", "--batch", "1,3", "--threads", "1,2", "--json", str(file)) == 0
    report = from_json(file.read_text(encoding="utf-8"))
    assert table(report) + "\n" == capsys.readouterr().out
    assert len(report.figures) == 2 * 2 * 3
    assert all(figure.checked >= 2 for figure in report.figures if figure.engine != "np.max")
    assert json.loads(to_json(report)) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("options", [[], ["--dtype", "bfloat16"]])
def test_rows_from_a_file(options, tmp_path, capsys):
    file = tmp_path / "rows.npy"
    rows = make_rows(300, 4)
    np.save(file, (rows.view(np.uint32) >> 16).astype(np.uint16).view("V2") if options else rows.astype(np.float16))
    arguments = ["--quick", "--rounds", "2", "--engines", "toksample", "--calls", "temperature"]
    assert run(*arguments, "--logits", str(file), *options) == 0
    out = capsys.readouterr().out
    assert "rows: 4 from rows.npy" in out
    assert " ".join(options) in out
    assert "V = 300" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--calls", "argmin"], "calls must be some of argmax, top_k, .*, got 'argmin'"),
        (["--engines", "abacus"], "engines must be some of toksample, .*, got 'abacus'"),
        (["--vocab", "12"], r"vocab must be an integer in \[64, 4194304\], got '12'"),
        (["--batch", "0"], r"batch must be an integer in \[1, 4194304\], got '0'"),
        (["--threads", "x"], "threads must be an integer in .*, got 'x'"),
        (["--rounds", "1.5"], "rounds must be an integer in .*, got '1.5'"),
        (["--seconds", "nan"], "seconds must be a number > 0, got 'nan'"),
        (
            ["--plot", "picture.gif"],
            r"plot must be a file name that ends with \.png, \.svg or \.html, got 'picture.gif'",
        ),
        (["--json", "no/such/folder.json"], "no/such/folder.json: there is no such folder"),
        (["--dtype", "bfloat16"], "--dtype has no meaning without --logits, whose type it names"),
        (["--logits", "no_such.npy"], "no_such.npy: No such file or directory"),
    ],
)
def test_bad_input(arguments, text, capsys):
    with pytest.raises(ValueError, match=text):
        run(*arguments)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 2, 2), np.float32), r"logits must be of shape \(V,\) or \(B, V\), got shape \(2, 2, 2\)"),
        (np.zeros(5, np.int64), "logits must be float32, float16, bfloat16 or float64, got '<i8'"),
        (np.float32([0, np.nan]), "must be finite"),
        (np.array([0, 1e300]), "must be finite"),
    ],
)
def test_bad_rows(array, text, tmp_path):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=text):
        run("--logits", str(tmp_path / "bad.npy"))


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_a_picture(ending, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"picture{ending}"
    assert run(*QUICK, "--calls", "argmax,top_k+top_p,16-logits", "--plot", str(file)) == 0
    assert file.stat().st_size > 5_000


def test_a_picture_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"a picture needs matplotlib: pip install 'toksample\[plot\]'"):
        run(*QUICK, "--plot", "picture.png")
    assert capsys.readouterr() == ("", "")  # nothing has been measured in vain


def test_a_wrong_answer_is_no_figure():
    class Wrong(Engine):
        name = "wrong"

        def argmax(self, rows):
            return lambda: 0

    class Broken(Engine):
        name = "broken"

        def __init__(self, threads):
            raise ImportError("no such library")

        def argmax(self, rows):
            raise AssertionError("never reached")

    case = Case(CALLS[0], 200, 1, 1)
    figures = measure(case, [Wrong, Broken, Toksample], [make_row("news", 200)], rounds=2)
    errors = {figure.engine: figure.error for figure in figures}
    assert errors == {
        "np.max": None,
        "toksample": None,
        "wrong": "AssertionError: argmax: 0",
        "broken": "ImportError: no such library",
    }


class Clock:
    """Stands in for the module `time`, and makes functions that seem to take a given time."""

    def __init__(self):
        self.seconds = 0.0
        self.order = ""

    def function(self, name, seconds):
        def call():
            self.order += name
            self.seconds += seconds

        return call

    def perf_counter(self):
        return self.seconds

    def perf_counter_ns(self):
        return round(self.seconds * 1e9)

    def thread_time_ns(self):
        return round(self.seconds * 1e9 / 2)  # the other half went to other processes

    def sleep(self, seconds):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(runner, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("takes", "may_take", "calls", "times"),
    [
        # Before the first round there are two calls, or a long one; in each round an untimed call, but no long one.
        (2e-4, math.inf, 2 + 2 * 6, 6),
        (2 * LONG, math.inf, 1 + 6, 6),
        (2 * LONG, 9 * LONG, 1 + 4, 4),
        (2 * LONG, 1e-9, 1 + 3, 3),
        (SHORT / 2, math.inf, 2 + 6 * (1 + 20), 6),
    ],
)
def test_how_often_a_function_is_timed(takes, may_take, calls, times, clock):
    (found,) = time_in_turn([clock.function("a", takes)], 6, seconds=may_take, threads=2)
    assert len(clock.order) == calls
    assert found == pytest.approx([takes * 1e6] * times)


def test_one_thread_is_not_charged_for_other_processes(clock):
    (found,) = time_in_turn([clock.function("a", LONG)], 2, threads=1)
    assert found == pytest.approx([LONG * 1e6 / 2] * 2)


def test_functions_are_timed_in_turn(clock):
    functions = [clock.function(name, 2 * LONG) for name in "abc"]
    time_in_turn(functions, 4)
    assert clock.order == "abc" + "abc" + "bca" + "cab" + "abc"


def test_each_function_may_have_a_number_of_threads(clock):
    functions = [clock.function(name, 2 * LONG) for name in "ab"]
    one, two = time_in_turn(functions, 3, threads=[1, 2])
    assert one == pytest.approx([LONG * 1e6] * 3)  # its CPU time
    assert two == pytest.approx([2 * LONG * 1e6] * 3)


def test_functions_that_take_no_time():
    (found,) = time_in_turn([lambda: None], 3)
    assert len(found) == 3
    assert all(each < SHORT * 1e6 for each in found)


SAMPLE = {call.name: call for call in CALLS if call.operation == "sample"}
EDITS = ("repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias")


def test_every_method_has_a_case():
    settings = {"penalty_window", "order", "dynatemp_exponent", "mirostat_tau", "mirostat_eta", "smoothing_curve"}
    settings |= {"adaptive_decay", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "min_tokens_to_keep"}
    # These edit or ban a few tokens, and take as long as a penalty or a bias.
    like_others = {"encoder_repetition_penalty", "exponential_decay_length_penalty", "min_new_tokens", "max_new_tokens"}
    methods = set(toksample.SamplingParams.__slots__) - {"seed", "stream"} - settings - like_others - set(RULES)
    assert methods == {name for call in SAMPLE.values() for name in call.params} - {"output_ids"}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@pytest.mark.parametrize("batch", [1, 2])
def test_each_case_with_the_engines_that_are_installed(call, batch):
    engines = [engine for engine in ENGINES if engine.is_installed()]
    vocab = call.vocab or 2_000
    inputs = [make_rows(vocab, batch)] if batch > 1 else [make_row(kind, vocab) for kind in KINDS]
    figures = measure(Case(call, vocab, batch, 1), engines, inputs, rounds=2, seconds=0.001)
    assert [figure.engine for figure in figures] == ["np.max", *(one.name for one in engines if one.can(call))]
    assert {figure.error for figure in figures} == {None}
    assert all(figure.checked for figure in figures[1:])


def test_which_calls_an_engine_can_do():
    class Few(Engine):
        def sample(self, rows, temperature, top_k=0):
            raise NotImplementedError

    assert [call.name for call in CALLS if Few.can(call)] == ["temperature"]
    for name in SAMPLE:
        assert Toksample.can(SAMPLE[name])
        assert Numpy.can(SAMPLE[name])


@pytest.mark.parametrize("name", [name for name in SAMPLE if name != "temperature"])
def test_an_illegal_draw_is_seen(name):
    call = SAMPLE[name]
    row = make_row("news", call.vocab or 5_000)
    for token in (int(row.argmin()), -1, len(row)):
        with pytest.raises(AssertionError, match=r"is not a (legal draw|token)"):
            check(call, row, token)


def test_a_typical_draw_may_not_be_the_most_probable_token():
    row = np.float32([3.0] + [0.0] * 40)  # a half of the probability, and tokens of an eightieth
    call = SAMPLE["typical_p"]._replace(params={"typical_p": 0.4})
    assert np.array_equal(may_be_drawn(call, row[None]), row[None] == 0)
    with pytest.raises(AssertionError, match="token 0 is not a legal draw"):
        check(call, row, 0)


def test_xtc_may_not_draw_the_most_probable_token():
    row = np.log(np.float32([0.5, 0.3, 0.15, 0.05]))
    call = SAMPLE["xtc"]._replace(params={"temperature": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.2})
    assert may_be_drawn(call, row[None]).tolist() == [[False, True, True, True]]
    with pytest.raises(AssertionError, match="token 0 is not a legal draw"):
        check(call, row, 0)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize(
    "kind", KINDS[1:]
)  # a token of the first kind is too probable for a penalty to change the draw
def test_edits_change_what_may_be_drawn(name, kind):
    rows = make_row(kind, 5_000)[None]
    without = {parameter: value for parameter, value in SAMPLE[name].params.items() if parameter != name}
    edited, plain = may_be_drawn(SAMPLE[name], rows), may_be_drawn(SAMPLE[name]._replace(params=without), rows)
    assert not np.array_equal(edited, plain)


def test_a_second_copy_with_another_instruction_set():
    environment, modules = dict(os.environ), dict(sys.modules)
    copy = second_copy("portable")
    assert copy.isa() == "portable"
    assert copy.sample is not toksample.sample
    assert (dict(os.environ), sys.modules["toksample"]) == (environment, toksample)
    assert [name for name in modules if sys.modules[name] is not modules[name]] == []
    rows = make_rows(3_000, 4)
    assert np.array_equal(copy.sample(rows, top_p=0.9, seed=1), toksample.sample(rows, top_p=0.9, seed=1))


def test_each_engine_has_a_name_of_its_own():
    assert len({engine.name for engine in ENGINES}) == len(ENGINES)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    list(zip(KINDS, NUCLEI, strict=True)),
)
def test_made_rows_have_the_nuclei_of_the_real_ones(kind, sizes):
    row = make_row(kind, 262_144)
    made = [len(toksample.candidates(row, temperature=t, top_p=0.9)[0]) for t in (0.7, 1.0, 1.5)]
    assert made == pytest.approx(sizes, rel=0.02, abs=1)
