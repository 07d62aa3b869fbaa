"""Where and when something was measured: the columns that make a row worth keeping."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path


def describe() -> dict[str, str]:
    """Date, processor, cores this process may use, system and Python."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor by name, family and model: virtual machines often hide the name's better half."""
    wanted = dict.fromkeys(("model name", "cpu family", "model"), "?")
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        if wanted.get(name.strip()) == "?":
            wanted[name.strip()] = value.strip()
    if wanted["model name"] == "?":
        return platform.processor() or platform.machine()
    return "{model name} (family {cpu family}, model {model})".format(**wanted)
