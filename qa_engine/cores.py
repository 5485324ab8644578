"""How many CPU cores this process may use: what the machine has, less what it was not given."""

import math
import os
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def cores(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """By its affinity, and by the quotas of its cgroup and all above it (container, systemd unit); 1 at least."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([available, *_quotas(cgroups, own_cgroup)]))


def _quotas(cgroups: Path, own_cgroup: Path) -> list[int]:
    """In cores, rounded up. Version 2 only: `0::/a/b` names the cgroup, `QUOTA PERIOD` in microseconds its quota."""
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:  # not Linux
        return []
    place = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    quotas = []
    for part in (PurePosixPath(place), *PurePosixPath(place).parents):
        try:
            quota, period = (cgroups / part / "cpu.max").read_text().split()
            quotas.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # none here, or "max"
            continue
    return quotas
