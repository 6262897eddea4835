"""Files of logits for the command line: any bytes lead to the right answer, or to one line on stderr and exit code 2."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import toksample
from toksample import cli
from toksample._npy import read_npy

LOGITS = np.random.default_rng(3).normal(scale=4, size=(4, 12)).astype(np.float32)
BFLOAT16 = LOGITS.astype(ml_dtypes.bfloat16)


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns that older readers do not know the newer versions
        np.lib.format.write_array(file, array, version)
    return file.getvalue()


def raw(array: Any) -> bytes:
    """Save bfloat16 under the name '|V2', which some releases use. Others use '<V2'."""
    return with_header(f"{{'descr': '|V2', 'fortran_order': False, 'shape': {array.shape}, }}", array.tobytes())


def with_header(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code: Any = cli.main(argv)
    except SystemExit as exit_info:
        code = exit_info.code
    return (code, *capsys.readouterr())


def tokens(output: str) -> list[int]:
    return [json.loads(line)["token"] for line in output.splitlines()]


# ---- files that must work ----------------------------------------------------------------------------------------------

GOOD = {
    "float32": npy(LOGITS),
    "float16": npy(LOGITS.astype(np.float16)),
    "float64": npy(LOGITS.astype(np.float64)),
    "big-endian float32": npy(LOGITS.astype(">f4")),
    "big-endian float16": npy(LOGITS.astype(">f2")),
    "big-endian float64": npy(LOGITS.astype(">f8")),
    "Fortran order": npy(np.asfortranarray(LOGITS)),
    "Fortran order, big-endian float64": npy(np.asfortranarray(LOGITS.astype(">f8"))),
    "one row": npy(LOGITS[0]),
    "version 2": npy(LOGITS, (2, 0)),
    "version 3": npy(LOGITS, (3, 0)),
    "Python 2": with_header("{'descr': '<f4', 'shape': (4L, 12L), 'fortran_order': False}\n", LOGITS.tobytes()),
    "another writer": with_header('{"shape":(4,12,),"fortran_order":False,"descr":"<f4"}', LOGITS.tobytes()),
    "bfloat16": npy(BFLOAT16),
    "bfloat16 of other releases": raw(BFLOAT16),
    "big-endian bfloat16": npy(BFLOAT16.astype(BFLOAT16.dtype.newbyteorder(">"))),
    "bits of bfloat16": npy(BFLOAT16.view(np.uint16)),
    "big-endian bits of bfloat16": npy(BFLOAT16.view(np.uint16).astype(">u2")),
    "signed bits of bfloat16": npy(BFLOAT16.view(np.int16)),
    "bits of bfloat16 in Fortran order": npy(np.asfortranarray(BFLOAT16.view(np.uint16))),
}


def options(name: str) -> list[str]:
    return ["--dtype", "bfloat16"] if "bfloat16" in name else []


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logits.npy"
    path.write_bytes(GOOD[name])
    logits = {"bfloat16": BFLOAT16, "float16": LOGITS.astype(np.float16), "one row": LOGITS[:1]}
    wanted = next((value for key, value in logits.items() if key in name), LOGITS)
    array = read_npy(str(path), "bfloat16" if "bfloat16" in name else None)
    assert np.array_equal(np.atleast_2d(array), wanted)
    code, output, errors = run(capsys, "sample", str(path), "--seed", "2", *options(name))
    assert (code, errors) == (0, "")
    assert tokens(output) == toksample.sample(wanted, seed=2).tolist()


def test_every_bfloat16_is_read_as_it_is(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    (tmp_path / "all.npy").write_bytes(npy(bits.view("V2")))
    array = read_npy(str(tmp_path / "all.npy"), "bfloat16")
    assert array.dtype == np.float32
    assert array.tobytes() == (bits.astype(np.uint32) << 16).tobytes()
    numbers = ~np.isnan(array)
    assert np.array_equal(array[numbers], bits.view(ml_dtypes.bfloat16).astype(np.float32)[numbers])


def test_bfloat16_does_not_need_ml_dtypes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logits.npy"
    path.write_bytes(raw(BFLOAT16))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    code, output, _ = run(capsys, "sample", str(path), "--greedy", "--dtype", "bfloat16")
    assert code == 0
    assert tokens(output) == BFLOAT16.astype(np.float32).argmax(axis=1).tolist()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
@pytest.mark.parametrize(("ending", "wanted"), [(b"", 0), (b"x", 2)], ids=["whole", "too long"])
def test_a_named_pipe(ending: bytes, wanted: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    large = np.random.default_rng(4).normal(size=(3, 200_000)).astype(np.float32)  # more than a pipe can hold at once
    writer = threading.Thread(target=lambda: path.write_bytes(npy(large) + ending))
    writer.start()
    code, output, errors = run(capsys, "sample", str(path), "--greedy")
    writer.join(timeout=60)
    assert code == wanted
    if wanted == 0:
        assert (tokens(output), errors) == (large.argmax(axis=1).tolist(), "")
    else:
        assert output == ""
        assert errors.endswith("the file must hold 2400000 bytes of logits, as its header says, got more\n")


# ---- files that must not ------------------------------------------------------------------------------------------------

HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n"
NOT_NPY = "the file must hold one array of numbers in .npy format"
TYPES = "logits must be float32, float16, bfloat16 or float64, got "
BITS = "for --dtype bfloat16, the file must hold 2-byte integers or raw bytes, got "


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, logits=LOGITS)
    return file.getvalue()


def header(descr: str = "'<f4'", fortran_order: str = "False", shape: str = "(4, 12)", data: bytes = b"") -> bytes:
    return with_header(HEADER.format(descr, fortran_order, shape), data or LOGITS.tobytes())


BAD = {
    "empty": (b"", NOT_NPY),
    "text": (b"not an array", NOT_NPY),
    "npz": (npz(), NOT_NPY),
    "pickle": (LOGITS.dumps(), NOT_NPY),
    "a version to come": (b"\x93NUMPY\x04" + npy(LOGITS)[7:], NOT_NPY),
    "the magic alone": (npy(LOGITS)[:6], NOT_NPY),
    "half of a header": (npy(LOGITS)[:60], NOT_NPY),
    "no header": (with_header(""), NOT_NPY),
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 20_000, NOT_NPY),
    "nested": (with_header("(" * 9_000), NOT_NPY),
    "signs": (with_header("-" * 9_000 + "1"), NOT_NPY),
    "code": (header(shape="__import__('os').abort()"), NOT_NPY),
    "a key too few": (with_header("{'descr': '<f4', 'shape': (4, 12)}", LOGITS.tobytes()), NOT_NPY),
    "a key twice": (with_header("{'descr': '<f4', 'shape': (4, 12), 'shape': (4, 12)}", LOGITS.tobytes()), NOT_NPY),
    "an open string": (header(descr="'<f4"), NOT_NPY),
    "another order": (header(fortran_order="0"), NOT_NPY),
    "a string as order": (header(fortran_order="'True'"), NOT_NPY),
    "a number as shape": (header(shape="48"), NOT_NPY),
    "a number in brackets": (header(shape="(48)"), NOT_NPY),
    "a negative shape": (header(shape="(-1, 12)"), NOT_NPY),
    "a shape of bools": (header(shape="(True, 12)"), NOT_NPY),
    "an octal shape": (header(shape="(04, 12)"), NOT_NPY),
    "a shape of 5,000 digits": (header(shape=f"({'9' * 5_000},)"), NOT_NPY),
    "structured": (npy(np.zeros(3, [("a", "f4"), ("b", "i8")])), NOT_NPY),
    "several types": (header(descr="'<f4,<f4'"), TYPES + "'<f4,<f4'"),
    "objects": (with_header(HEADER.format("'|O'", "False", "(3,)"), b"cos\nabort\n(tR."), TYPES + "'|O'"),
    "integers": (npy(LOGITS.astype(np.int64)), TYPES + "'<i8'"),
    "2-byte integers": (npy(LOGITS.astype(np.uint16)), TYPES + "'<u2'"),
    "complex": (npy(LOGITS.astype(np.complex64)), TYPES + "'<c8'"),
    "a long type": (header(descr=f"'{'f' * 1_000}'"), TYPES + f"'{'f' * 196}..."),
    "bfloat16 without a word": (raw(BFLOAT16), TYPES + "'|V2'; if these are bfloat16, write --dtype bfloat16"),
    "float32 as bfloat16": (npy(LOGITS), BITS + "'<f4'"),
    "float16 as bfloat16": (npy(LOGITS.astype(np.float16)), BITS + "'<f2'"),
    "no axis": (npy(np.float32(1)), "logits must be of shape (V,) or (B, V), got shape ()"),
    "three axes": (npy(np.zeros((2, 2, 2), np.float32)), "logits must be of shape (V,) or (B, V), got shape (2, 2, 2)"),
    "cut short": (npy(LOGITS)[:-1], "the file must hold 192 bytes of logits, as its header says, got 191"),
    "no logits": (npy(LOGITS)[:128], "the file must hold 192 bytes of logits, as its header says, got 0"),
    "two arrays": (npy(LOGITS) * 2, "the file must hold 192 bytes of logits, as its header says, got more"),
    "huge": (
        header(shape="(999999999999999999, 999999999999999999)"),
        f"the file must hold {4 * 999999999999999999**2} bytes of logits, as its header says, got 192",
    ),
    "huge and empty": (
        header(shape="(0, 999999999999999999)"),
        "the file must hold 0 bytes of logits, as its header says, got more",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, error = BAD[name]
    path = tmp_path / "logits.npy"
    path.write_bytes(content)
    argv = [str(path), "--dtype", "bfloat16"] if "as bfloat16" in name else [str(path)]
    wanted = (2, "", f"toksample: error: {path}: {error}\n")
    assert run(capsys, "sample", *argv) == wanted
    assert run(capsys, "bench", "--logits", *argv) == wanted


@pytest.mark.parametrize(("shape", "data"), [((0,), b""), ((0, 3), b""), ((2, 0), b"")])
def test_no_logits_at_all(shape: Any, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logits.npy"
    path.write_bytes(npy(np.zeros(shape, np.float32)))
    code, output, errors = run(capsys, "bench", "--logits", str(path))
    assert (code, output) == (2, "")
    assert "logits must have at least one row and one token" in errors
    code, output, errors = run(capsys, "sample", str(path))
    assert output == ""
    assert (code, errors) == (0, "") if shape == (0, 3) else (code, errors.count("\n")) == (2, 1)


def test_a_missing_file_and_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.npy"
    error = f"toksample: error: {missing}: No such file or directory\n"
    assert run(capsys, "sample", str(missing)) == (2, "", error)
    code, output, errors = run(capsys, "sample", str(tmp_path))
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"toksample: error: {tmp_path}: ")
    code, output, errors = run(capsys, "sample", "no\0file")
    assert (code, output, errors.count("\n")) == (2, "", 1)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="devices of POSIX")
def test_a_file_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "sample", "/dev/zero") == (2, "", f"toksample: error: /dev/zero: {NOT_NPY}\n")


def test_a_file_that_becomes_shorter_while_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process does not crash if the file is cut before the logits are read, or before they are used."""
    path = tmp_path / "logits.npy"
    large = np.zeros((8, 2**18), np.float32)

    def cut(*arguments: Any, function: Any, **keywords: Any) -> Any:
        os.truncate(path, 200)
        return function(*arguments, **keywords)

    for place, name, wanted in ((toksample._npy, "_stored_dtype", 2), (toksample, "sample", 0)):
        path.write_bytes(npy(large))
        with monkeypatch.context() as patch:
            function = getattr(place, name)
            patch.setattr(place, name, lambda *a, f=function, **k: cut(*a, function=f, **k))
            code, output, errors = run(capsys, "sample", str(path), "--greedy")
        assert path.stat().st_size == 200
        assert code == wanted
        assert tokens(output) == [0] * 8 if wanted == 0 else errors.count("\n") == 1


def test_memory_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logits.npy"
    path.write_bytes(npy(LOGITS))

    def out_of_memory(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "read_npy", out_of_memory)
    assert run(capsys, "sample", str(path)) == (2, "", "toksample: error: there is not enough memory\n")


# ---- any bytes ----------------------------------------------------------------------------------------------------------

SNIPPETS = b"( ) [ { } ' \" , : - L \\ # \0 True 0x 9999999999999999999999999".split(b" ")


def spoil(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a good file in one of many ways, most often in its header."""
    data = bytearray(content)
    place = int(rng.integers(min(len(data), 80) if rng.random() < 0.5 else len(data)))
    kind = rng.integers(8)
    if kind <= 2:
        for _ in range(rng.integers(1, 4)):
            data[place] ^= 1 << rng.integers(8)
            place = int(rng.integers(len(data)))
    elif kind == 3:
        data[place] = rng.integers(256)
    elif kind == 4:
        data[place : place + int(rng.integers(1, 30))] = b""
    elif kind == 5:
        data[place:place] = SNIPPETS[rng.integers(len(SNIPPETS))]
    elif kind == 6:
        length = int(rng.integers(1, 30))
        data[place : place + length] = bytes(length)
    elif rng.random() < 0.5:
        del data[int(rng.integers(len(data))) :]
    else:
        data += rng.bytes(rng.integers(1, 300))
    return bytes(data)


def as_numpy_reads(path: Path, name: str) -> Any:
    """Return the logits that numpy finds in the file, or None if it finds none."""
    try:
        array = np.load(path)
        if "bfloat16" in name:
            if b">V2" in path.read_bytes()[:128]:
                array = array.view(">u2")  # numpy drops the byte order of raw bytes
            if array.dtype.kind in "ui":
                array = array.astype(np.uint16)  # converts it to the byte order of this machine
            return array.view(ml_dtypes.bfloat16)
        return array if array.dtype.kind == "f" else None
    except Exception:
        return None


@pytest.mark.parametrize("name", GOOD)
def test_spoiled_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spoiled file leads to an error, or to the tokens of the array that numpy finds in it."""
    rng = np.random.default_rng(list(GOOD).index(name))
    path = tmp_path / "logits.npy"
    codes = {0: 0, 2: 0}
    for _ in range(250):
        path.write_bytes(spoil(GOOD[name], rng))
        argv = ["sample", str(path), "--seed", "2", "--errors", "mark", *options(name)]
        code, output, errors = run(capsys, *argv)
        codes[code] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warnings of numpy, and of the Python parser that it uses
            logits = as_numpy_reads(path, name)
        if code == 0:
            assert errors == ""
            with np.errstate(all="ignore"):
                wanted = np.atleast_1d(toksample.sample(logits, seed=2, errors="mark")).tolist()
            assert tokens(output) == wanted
        else:
            assert output == ""
            assert errors.startswith("toksample: error: ")
            assert (errors.count("\n"), errors[-1]) == (1, "\n")
    assert codes[0] >= 10
    assert codes[2] > 80
