"""Counts the instructions of fixed calls, and compares the counts with instructions.json: ``instructions.py [--update]``.

Unlike a time, a count does not depend on the machine and its load. A loop that is no longer vectorized, or an unnecessary pass
over the row, shows at once. valgrind presents the same CPU to the program everywhere, one with AVX2. The difference between
two runs with different numbers of repeats leaves out the start of the program and the making of the row.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMITTED = Path(__file__).with_suffix(".json")
# Another version of rustc or its standard library changes the counts by a few percent. A loop that has lost its vector code
# takes several times as many instructions, and is a large part of its case.
MARGIN = 0.10
# Two runs also differ by some hundred instructions that have nothing to do with the calls. For a call with fewer instructions
# than this, that is a large part, so more calls are made.
SHORT = 100_000
# valgrind counts a `rep stosb` as one instruction for each byte. Without ERMS, glibc uses vectors to set and copy memory.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS"}


def build(*target: str) -> Path:
    """Compile a target of the crate with the profile of the wheel, but with readable symbols. Return the path of the file."""
    command = ["cargo", "rustc", "--release", "--locked", "--message-format=json", *target]
    options = ["--", "-C", "strip=none", "-C", "symbol-mangling-version=v0"]
    lines = subprocess.run(command + options, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    made = [message for message in map(json.loads, lines) if message["reason"] == "compiler-artifact"]
    return Path(made[-1]["filenames"][0])


def count(program: Path, case: str, repeats: int) -> int:
    """Return the number of instructions of a whole run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case, str(repeats)]
    run = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not collected:
        sys.exit(f"{case}: {run.stderr}")
    return int(collected[1])


def per_call(program: Path, case: str) -> int:
    """Return the number of instructions of one call, which reuses the scratch memory of an earlier call."""
    once = count(program, case, 1)
    instructions = (count(program, case, 3) - once) // 2
    if instructions < SHORT:
        instructions = (count(program, case, 101) - once) // 100
    return instructions


def main(arguments: list[str]) -> None:
    """Print a line for each case. Exit with a message if one takes too many instructions."""
    program = build("--example", "instructions")
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cases = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(cases, pool.map(lambda case: per_call(program, case), cases), strict=True))
    if arguments == ["--update"]:
        COMMITTED.write_text(json.dumps({"rustc": rustc, "instructions": counts}, indent=4) + "\n")
    committed = json.loads(COMMITTED.read_text())

    print(f"{'case':47}{'instructions':>14}{'committed':>14}{'ratio':>8}")
    more = []
    for case, seen in counts.items():
        before = committed["instructions"].get(case, 0)
        ratio = seen / before if before else float("inf")
        verdict = "MORE" if ratio > 1 + MARGIN else "better: --update" if ratio < 1 - MARGIN else ""
        more += [case] if verdict == "MORE" else []
        print(f"{case:47}{seen:14,}{before:14,}{ratio:8.3f}  {verdict}".rstrip())
    print(f"{rustc}; committed: {committed['rustc']}")
    if more:
        sys.exit(f"more than {MARGIN:.0%} above instructions.json: {'; '.join(more)}")


if __name__ == "__main__":
    main(sys.argv[1:])
