"""What memory a device has, and the most that a training took of it. Probes can be replaced where there is no GPU."""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from harness.placement import GpuMemory

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Probe(NamedTuple):
    """How one type of device is asked for its memory, in bytes, by the device's name."""

    free: Callable[[str], int]  # of the whole device, now
    total: Callable[[str], int]
    held: Callable[[str], int]  # by this process, now
    restart: Callable[[str], None]  # give back what is held and not used, and forget the peak
    peak: Callable[[str], int]  # most that this process held since then


def taken(device: str, probe: Probe | None = None) -> Callable[[], int]:
    """Begin to measure. What it gives tells the most bytes that were held since, beyond those held at the beginning."""
    probe = probe or of(device)
    probe.restart(device)
    before = probe.held(device)
    return lambda: max(0, probe.peak(device) - before)


def of_gpu(device: str, probe: Probe | None = None) -> GpuMemory:
    """Of a GPU that a process has to itself, while it has trained nothing."""
    probe = probe or of(device)
    torch.zeros(1, device=device)  # its context takes hundreds of MB
    total = probe.total(device)
    return GpuMemory(total, max(0, total - probe.free(device)))


def of(device: str) -> Probe:
    """The probe of a device's type; that of the processor where it has none of its own."""
    return PROBES.get(torch.device(device).type, PROBES["cpu"])


def _status(*names: str) -> dict[str, int]:
    """Numbers of /proc/self/status, in bytes."""
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return {words[0][:-1]: int(words[1]) * 1024 for words in lines if words[0][:-1] in names}


def _most_ever() -> int:
    """Where the system tells no more: the most that this process held since it began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _own(name: str) -> int:
    """VmRSS or VmHWM without what is shared: data sets lie in Ray's object store, and count here once they are read."""
    try:
        found = _status(name, "RssShmem")
    except OSError:
        return _most_ever()
    return found[name] - found["RssShmem"]


def _restart() -> None:
    """What the C library keeps for the next step would hide what a training needs that fits into it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")  # Linux: the peak is the present from here on


def _restart_gpu(device: str) -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)


def _pages(name: str) -> int:
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


PROBES = {
    "cpu": Probe(
        free=lambda _: _pages("SC_AVPHYS_PAGES"),
        total=lambda _: _pages("SC_PHYS_PAGES"),
        held=lambda _: _own("VmRSS"),
        restart=lambda _: _restart(),
        peak=lambda _: _own("VmHWM"),
    ),
    "cuda": Probe(
        free=lambda device: torch.cuda.mem_get_info(device)[0],
        total=lambda device: torch.cuda.mem_get_info(device)[1],
        held=lambda device: torch.cuda.memory_reserved(device),
        restart=_restart_gpu,
        peak=lambda device: torch.cuda.max_memory_reserved(device),
    ),
}
