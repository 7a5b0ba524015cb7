"""What the engine knows and sets about the process that it runs in: versions, numerics, memory."""

from __future__ import annotations

import ctypes
import mmap
import platform
import resource
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil
import torch

from core.device import CPU

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# A page that is given back costs a microsecond when it is needed again, which is twice what most kernels do with it.
# Larger tensors are mapped by themselves (glibc takes no more than this); of free memory at the heap's end this much is
# kept, and between others' as much as the process may grow by before it is given back.
_MMAP_BYTES = 32 << 20
_END_BYTES = 64 << 20
_FREE_BYTES = 100 << 20
_CODE = "r-xp"
_LARGE_CODE = 1 << 20


def forward_dtype(stored: str, *devices: torch.device) -> torch.dtype:
    """Returns the dtype in which blocks run: bfloat16 for weights stored so if all devices multiply it, else float32.

    Hessians, factors and the solve are float32 in any case. On the bench model bfloat16 took a quarter off the run and
    left the perplexity where it was.
    """
    return torch.bfloat16 if stored == "bfloat16" and all(map(_has_bfloat16, devices or (CPU,))) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return device.type == "cpu" and bool(native)


def numerics_profile(dtype: torch.dtype, *devices: torch.device) -> str:
    """Returns what the bytes of a result depend on besides its inputs: a resume on another profile starts anew.

    Several devices add up parts of a sum in another order than one does.
    """
    return " + ".join(_numerics(dtype, device) for device in devices)


def _numerics(dtype: torch.dtype, device: torch.device) -> str:
    name = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"torch {torch.__version__} cuda {torch.version.cuda} {torch.cuda.get_device_name(device)} {name}"
    if device.type != "cpu":
        return f"torch {torch.__version__} {device.type} {platform.machine()} {name}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} cpu {platform.machine()} {capability} {name}"


def use_threads(threads: int) -> None:
    """Gives this thread's products and kernels so many threads; torch and Numba count them for each thread."""
    torch.set_num_threads(threads)
    match_kernel_threads()


def match_kernel_threads() -> None:
    """Gives the compiled kernels as many threads as torch has here, so that a job keeps to its share of the machine.

    Without Numba there are none; `core.kernels.compiled` says so.
    """
    try:
        import numba  # noqa: PLC0415 - may be missing
    except (ImportError, OSError):
        return
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba sets it from its variables
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, most))
    # At the first call Numba starts its threads and tells their number to OpenMP, which is where torch keeps its own.
    torch.set_num_threads(threads)


def kernels_serve_one_thread() -> bool:
    """Whether threads must not run compiled kernels at the same time; to be asked once one has run here.

    Numba's own pool ends the process then; OpenMP and TBB, which it prefers, do not mind.
    """
    try:
        import numba  # noqa: PLC0415 - may be missing
    except (ImportError, OSError):
        return False
    return bool(numba.threading_layer() == "workqueue")  # type: ignore[attr-defined]  # numba names no exports


def versions() -> dict[str, str]:
    """Returns the versions of the programs that decide a result; Numba's only where it is installed."""
    names = ("bitmill", "torch", "transformers", "numba", "safetensors")
    found = {"python": platform.python_version()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def rss_bytes() -> int:
    """Returns the process's resident memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Returns the largest resident memory that the process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_code_pages(maps: Path = Path("/proc/self/maps")) -> None:
    """Lets go of the pages of large libraries' code that are in memory; what is run again comes back from their files.

    Importing and linking touch nearly all of torch and of the kernels' compiler, a run a small part: 100 MB less.
    Elsewhere than on Linux it does nothing.
    """
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for line in lines:
        place, rights, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in place.split("-"))
        # Code alone: it is never written to, while a library's data holds what its loader wrote.
        if rights == _CODE and path and path[0].startswith("/") and end - start >= _LARGE_CODE:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def return_freed_memory() -> None:
    """Makes the C library give freed memory back to the system, now and at once for large tensors, where it is glibc.

    By default it raises its thresholds with every large free, and then keeps hundreds of megabytes in fragments, each
    thread its own.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _END_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)
    _heap.return_pages()


def return_free_pages(ahead_bytes: int = 0) -> None:
    """Makes glibc give back whole pages that are free between others that are used, once they have become many.

    Activations of a few megabytes leave holes that the next ones, a little larger, do not fill. ahead_bytes: the size
    of tensors that come next; large ones are mapped beside the free pages, which then count for the peak.
    """
    if ahead_bytes >= _MMAP_BYTES or rss_bytes() >= _heap.least_bytes + _FREE_BYTES:
        _heap.return_pages()


class _Heap:
    """least_bytes: the process's resident memory when free pages were given back last."""

    least_bytes = 0

    def return_pages(self) -> None:
        libc = _glibc()
        if libc is not None:
            libc.malloc_trim(0)
        self.least_bytes = rss_bytes()


_heap = _Heap()


@cache  # which library this process runs on does not change
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
