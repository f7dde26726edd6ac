"""Memory that a call needs at its peak."""

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

HIGH_WATER_MARK, RESET_IT = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb(work: Callable[[], object], device: torch.device) -> float:
    """Megabytes above what is held before the call: of the GPU, or of the process (Linux; elsewhere not a number).

    The call is made once before, so that what it keeps (compiled kernels, buffers of a library) does not count.
    """
    work()
    if device.type == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    if not sys.platform.startswith("linux"):
        return float("nan")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    RESET_IT.write_text("5")
    held = _high_water_mb()
    work()
    return _high_water_mb() - held


def _high_water_mb() -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", HIGH_WATER_MARK.read_text())[1]) / 1024
