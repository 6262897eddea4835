"""Counts the instructions of fixed calls, and compares the counts with instructions.json.

Unlike a time, a count does not depend on the machine and its load. A loop that is no longer vectorized, or an unnecessary pass
over the row, shows at once. valgrind presents the same CPU to the program everywhere, one with AVX2. The difference between
two runs with different numbers of repeats leaves out the start of the program and the making of the row.

The program for aarch64 runs under qemu, whose plugin qemu_count.c counts. ``.ci/other_cpu aarch64 --count`` builds the program
and calls this script.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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
VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
QEMU = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
PLUGIN = Path(__file__).with_name("qemu_count.c")


def build(*target: str) -> Path:
    """Compile a target of the crate with the profile of the wheel, but with readable symbols. Return the path of the file."""
    command = ["cargo", "rustc", "--release", "--locked", "--message-format=json", *target]
    options = ["--", "-C", "strip=none", "-C", "symbol-mangling-version=v0"]
    lines = subprocess.run(command + options, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    made = [message for message in map(json.loads, lines) if message["reason"] == "compiler-artifact"]
    return Path(made[-1]["filenames"][0])


def count(command: Sequence[str | Path], case: str, repeats: int) -> int:
    """Return the number of instructions of a whole run. The command runs the program under something that counts."""
    run = subprocess.run([*command, case, str(repeats)], env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not collected:
        sys.exit(f"{case}: {run.stderr}")
    return int(collected[1])


def per_call(command: Sequence[str | Path], case: str) -> int:
    """Return the number of instructions of one call, which reuses the scratch memory of an earlier call."""
    once = count(command, case, 1)
    instructions = (count(command, case, 3) - once) // 2
    if instructions < SHORT:
        instructions = (count(command, case, 101) - once) // 100
    return instructions


def count_all(command: Sequence[str | Path], cases: list[str]) -> dict[str, int]:
    """Return the number of instructions of one call of each case."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(lambda case: per_call(command, case), cases), strict=True))


def print_aarch64(program: Path) -> None:
    """Print a line for each case, as a table of Markdown: the committed count, that of aarch64, and how many times as many."""
    cases = subprocess.run([*QEMU, program], capture_output=True, text=True, check=True).stdout.splitlines()
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "qemu_count.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, PLUGIN], check=True)
        counts = count_all([*QEMU, "-plugin", plugin, program], cases)
    committed = json.loads(COMMITTED.read_text())["instructions"]
    print("| call | AVX2 | aarch64 | ratio |\n|---|---|---|---|")
    for case, seen in counts.items():
        print(f"| {case} | {committed[case]:,} | {seen:,} | {seen / committed[case]:.2f} |")


def main(arguments: list[str]) -> None:
    """Print a line for each case. Exit with a message if one takes too many instructions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--update", action="store_true", help="write the counts to instructions.json")
    about = "print the counts of this build of instructions.rs for aarch64, beside the committed ones"
    choice.add_argument("--aarch64", metavar="PROGRAM", type=Path, help=about)
    options = parser.parse_args(arguments)
    if options.aarch64:
        print_aarch64(options.aarch64)
        return

    program = build("--example", "instructions")
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cases = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    counts = count_all([*VALGRIND, program], cases)
    if options.update:
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
