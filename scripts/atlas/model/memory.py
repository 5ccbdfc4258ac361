"""What `memory_mb: auto` comes to: memory beside the weights for remembered residuals and batches."""

import ctypes
import dataclasses
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import torch

log = logging.getLogger("atlas")

MARGIN = 512 * 2**20  # bytes left alone on a GPU: kernels' own workspace, and what the allocator cannot place
PARTS = 3  # a job has up to four ablators with residuals, half of `memory_mb` each, and one batch on its way, as much
SHARE = 4  # on a CPU: one part in so many of what is available, since other jobs run beside
LEAST = 16  # MB, as in the schema


def free_bytes(device: str) -> int:
    """Memory that is free on a device."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        return 1024 * int(next(line.split()[1] for line in meminfo.open() if line.startswith("MemAvailable")))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # where no one says, half of it


def auto_mb(device: str, reserved: int, limit_mb: int | None = None) -> int:
    """MB that `memory_mb: auto` takes once the weights are loaded, at least LEAST; logged.

    On a GPU a third of what is free, less MARGIN. On a CPU a quarter of what is available, and at most a third of what
    the job's ``limit_mb`` (Snakemake's `mem_mb`) leaves beside what the process has taken so far. ``reserved``: bytes
    that are still to be taken for something else.
    """
    free = free_bytes(device)
    if device == "cuda":
        found = (free - MARGIN - reserved) // PARTS
    else:
        found = (free - reserved) // SHARE
        if limit_mb is not None:
            found = min(found, (limit_mb * 2**20 - taken_bytes() - reserved) // PARTS)
    megabytes = max(LEAST, found // 2**20)
    log.info("memory_mb: auto takes %d MB, of %d MB free on %s", megabytes, free // 2**20, device)
    return megabytes


def taken_bytes() -> int:
    """The most memory that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bytes_of(part: object) -> int:
    """Memory of all tensors within a tensor, a dataclass, a list or a tuple; what several share counts once."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors(part)}
    return sum(storages.values())


def tensors(part: object) -> Iterator[torch.Tensor]:
    """All tensors within a tensor, a dataclass, a list or a tuple."""
    if isinstance(part, torch.Tensor):
        yield part
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from tensors(getattr(part, field.name))
    elif isinstance(part, list | tuple):
        for each in part:
            yield from tensors(each)


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can: glibc keeps what lies between pieces in use, which
    in searches, whose tensors change their sizes with each circuit, comes to hundreds of megabytes."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
        return found
    except (OSError, AttributeError):  # another system, or another C library
        return None
