"""Check in the disassembly that the clones of `per_isa!` are vector code, and call no kernel that is compiled apart.

A kernel that is not inlined into a clone is compiled for the baseline of the target: it is right, and slow.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from instructions import build

REGISTER = {"avx2": "%ymm", "avx512": "%zmm"}
CLONE = re.compile(r"toksample::recipe::(\w+)::(portable|avx2|avx512)::<(.*)>")
# Moves do not count: any copy of memory may use wide registers.
SCALAR = re.compile(r"v(?!mov)\w+s[sd]")
CALL = re.compile(r"(?:call|j\w+) +[0-9a-f]+ <(.+?)(?:\+0x[0-9a-f]+)?>$")
# What a clone may call: an error, and what is no vector code anywhere, as selecting and sorting, and looking at the history.
MAY_CALL = re.compile(
    r"toksample::row::first_not_finite\b|toksample::methods::find::find_all\b|.*>::(select_nth_unstable|sort_unstable|retain)|core::slice::sort::"
)
# The least of wide instructions in a clone: the smallest has about 40, one without vector code a few.
LEAST = 30


def functions(program: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the instructions of each function."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", program]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for function in listing.split("\n\n"):
        head, *lines = function.strip().splitlines()
        if name := re.fullmatch(r"[0-9a-f]+ <(.*)>:", head):
            yield name[1], [line.partition("\t")[2] for line in lines]


def main() -> None:
    """Print a line for each clone; exit with what is wrong."""
    clones = {clone.groups(): lines for name, lines in functions(build()) if (clone := CLONE.fullmatch(name))}
    wrong = [] if clones else ["the program has no clones"]
    apart = defaultdict(list)  # what is not inlined: the clones that call it
    for recipe, _, logit in sorted(key for key in clones if key[1] == "portable"):
        for isa, register in REGISTER.items():
            name = f"{recipe}::{isa}::<{logit}>"
            instructions = clones.get((recipe, isa, logit), [])
            wide = sum(register in each and not each.startswith("vmov") for each in instructions)
            scalar = sum(SCALAR.match(each) is not None for each in instructions)
            print(f"{name:45}{len(instructions):6} instructions,{wide:5} on {register},{scalar:4} scalar")
            if wide < max(LEAST, scalar):
                wrong.append(f"not vectorized: {name}: {wide} instructions on {register}, {scalar} scalar")
            for callee in sorted({match[1] for each in instructions if (match := CALL.match(each))}):
                if "toksample::" in callee and not CLONE.fullmatch(callee) and not MAY_CALL.match(callee):
                    apart[callee].append(name)
    wrong += [f"not inlined: {callee}\n    into {', '.join(names)}" for callee, names in apart.items()]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
