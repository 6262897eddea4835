"""`benches/record.py`, the files in `benches/record` that it writes, and what README.md shows of one of them."""

import csv
import re
from pathlib import Path

import pytest
from draw_record import README, in_readme, read, table
from record import to_csv

RECORDS = sorted((Path(__file__).parent / "record").glob("*.csv"))


def parse(text):
    """Return the facts and the figures of a record."""
    lines = text.splitlines()
    facts = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    return facts, list(csv.DictReader(line for line in lines if not line.startswith("# ")))


def test_a_record_holds_the_whole_report():
    figures = [
        {"call": "temperature 0.7, top_p 0.9", "vocab": 262144, "microseconds": 1234.5678, "error": None},
        {"call": "argmax", "vocab": 16, "microseconds": 0.25, "error": 'said "no"'},
    ]
    report = {
        "date": "2026-11-24",
        "command": "a --b c",
        "machine": {"cpu": "a CPU", "cores": "2"},
        "versions": {"toksample": "0.1.0", "numpy": "2.4.6"},
        "figures": figures,
    }
    facts, rows = parse(to_csv(report))
    assert facts == {
        "date": "2026-11-24",
        "command": "a --b c",
        "cpu": "a CPU",
        "cores": "2",
        "versions": "toksample 0.1.0, numpy 2.4.6",
    }
    assert rows == [
        {"call": "temperature 0.7, top_p 0.9", "vocab": "262144", "microseconds": "1234.57", "error": ""},
        {"call": "argmax", "vocab": "16", "microseconds": "0.25", "error": 'said "no"'},
    ]


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_when_how_and_where_it_was_made(path):
    facts, rows = parse(path.read_text(encoding="utf-8"))
    assert path.stem.startswith(facts["date"])
    assert "toksample" in facts["versions"]
    assert facts["command"]
    assert facts["cpu"]
    assert rows
    assert all(None not in row and None not in row.values() for row in rows)  # as many cells as columns


def test_readme_shows_what_its_record_says():
    text = README.read_text(encoding="utf-8")
    record = re.search(r"<!-- record (\S+),", text)[1]
    assert in_readme(text, Path(__file__).parent / "record" / f"{record}.csv") == text


def test_the_table_of_a_record(tmp_path):
    path = tmp_path / "2026-11-24-a-machine.csv"
    path.write_text(
        "# date: 2026-11-24\n# command: a --b c\n# rows: made\n# cpu: a CPU (cpu family 6)\n# cores: 4\n"
        "# toksample uses: avx512\n"
        "call,vocab,batch,threads,engine,microseconds,low,high,times_max,times_toksample,samples,checked,error\n"
        "argmax,1000,1,1,np.max,20,19,21,1,2,3,0,\n"
        "argmax,1000,1,1,torch-all-threads,40,19,21,2,4,3,20,\n"
        "argmax,1000,1,1,toksample,10,19,21,0.5,1,3,20,\n"
        "argmax,1000,1,1,numpy,,,,,,0,0,no such library\n"
        "softmax,1000,1,1,np.max,21,20,22,1,0.1,3,0,\n"
        "softmax,1000,1,1,toksample,200,19,21,9.995,1,3,20,\n"
        "softmax,1000,8,1,np.max,21,20,22,1,0.1,3,0,\n"
    )
    assert list(table(read(path), path)) == [
        "<!-- record 2026-11-24-a-machine, written by benches/draw_record.py -->",
        "| times `np.max(row)` | toksample, AVX-512 | torch, 4 threads |",
        "|---|---|---|",
        "| argmax | 0.50 | 2.00 |",
        "| softmax, into an array | 10.0 |  |",
        "",
        "V = 1,000, 1 row, 1 thread; the rows: made; a CPU, 4 cores; 2026-11-24.",
        "`np.max(row)` takes 20.0 microseconds.",
        "[The record](benches/record/2026-11-24-a-machine.csv) also has the other calls and engines.",
        "<!-- end of the record -->",
    ]
