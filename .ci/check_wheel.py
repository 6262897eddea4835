"""Checks a wheel before anyone installs it: ``check_wheel.py FILE.whl``."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

MAX_BYTES = 2_500_000
FILES = (
    "toksample/__init__.py",
    "toksample/py.typed",
    "toksample/_native.pyi",
    "toksample/bench/command.py",
    "toksample/bench/engines/toksample.py",
    "toksample/demo/model.py",
)
LICENSES = ("LICENSE-MIT", "LICENSE-APACHE")


def has_symbol_table(elf: bytes) -> bool:
    """Return whether a 64-bit little-endian ELF file has a section of type SHT_SYMTAB, which stripping removes."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    return any(struct.unpack_from("<I", elf, table + index * size + 4)[0] == 2 for index in range(count))


def main(path: Path) -> None:
    """Exit with a message if something is wrong."""
    size = path.stat().st_size
    if size >= MAX_BYTES:
        sys.exit(f"{path.name}: a wheel must be smaller than {MAX_BYTES} bytes, got {size}")
    if "-cp311-abi3-" not in path.name:
        sys.exit(f"{path.name}: a wheel must be for the stable ABI of Python 3.11")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        libraries = [name for name in names if name.endswith((".so", ".pyd", ".dll", ".dylib"))]
        if len(libraries) != 1 or not libraries[0].endswith((".abi3.so", ".pyd")):
            sys.exit(f"{path.name}: a wheel must hold one stable-ABI library, got {libraries}")
        missing = [name for name in FILES if name not in names]
        missing += [name for name in LICENSES if not any(each.endswith(f"/licenses/{name}") for each in names)]
        if missing:
            sys.exit(f"{path.name}: a wheel must hold {', '.join(missing)}")
        library = wheel.read(libraries[0])
    if library.startswith(b"\x7fELF\x02\x01") and has_symbol_table(library):
        sys.exit(f"{path.name}: {libraries[0]} must be stripped")
    print(f"{path.name}: {size} bytes, {libraries[0]}: {len(library)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
