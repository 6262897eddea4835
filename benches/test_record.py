"""`benches/record.py`, and the files in `benches/record` that it writes."""

import csv
from pathlib import Path

import pytest
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
