"""Describes the machine on which the times are taken."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import toksample


def machine() -> dict[str, str]:
    """Describe this machine.

    No library is used for this, because the bench must run where only numpy is installed. On Linux, a few files have the name
    of the CPU and the sizes of its caches. On other systems there is only what ``platform`` of the standard library knows.
    """
    facts = {"cpu": platform.processor() or platform.machine(), "cores": str(cores())}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split("\t: ", 1) for line in cpuinfo.read_text().splitlines() if "\t: " in line)
        pairs = {key.strip(): value for key, value in lines.items()}
        if "model name" in pairs:
            facts["cpu"] = pairs["model name"]
            family = [f"{key} {pairs[key]}" for key in ("cpu family", "model", "stepping") if key in pairs]
            facts["cpu"] += f" ({', '.join(family)})" if family else ""
    caches = [
        f"L{(cache / 'level').read_text().strip()}{_kind((cache / 'type').read_text())} {(cache / 'size').read_text().strip()}"
        for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    ]
    if caches:
        facts["caches of a core"] = ", ".join(caches)
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    facts["toksample uses"] = toksample.isa()
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f} processes"
    return facts


def _kind(text: str) -> str:
    return {"Data": "d", "Instruction": "i"}.get(text.strip(), "")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
