"""What a timing was measured on: the fingerprint of this machine and of the libraries that matter."""

import os
import platform
from importlib import metadata
from typing import Any

import cpuinfo
from numba.core import config

from xnornet.cpu import allowed_cores

# Instruction sets that any contestant's speed hangs on, x86 then ARM; the other hundred flags would only hide them.
_FLAGS = (
    *("ssse3", "sse4_2", "popcnt", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bitalg", "avx512_vpopcntdq", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)

# onnx and onnxscript: without them ONNX Runtime and OpenVINO get no network to run.
_LIBRARIES = ("torch", "numpy", "numba", "llvmlite", "onnxruntime", "openvino", "onnx", "onnxscript")

# They choose how many threads a library starts, and for which CPU Numba compiles and torch chooses its kernels.
_VARIABLES = (
    *("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
)


def fingerprint() -> dict[str, Any]:
    """Describe this machine: CPU, vector flags, cores, memory, OS, Python and library versions.

    The same on every call on the same machine: no times, no names of host or user. What is not installed or not set is
    null. Takes about a second.
    """
    cpu = cpuinfo.get_cpu_info()
    flags = set(cpu.get("flags", ()))
    return {
        "cpu": {
            "name": cpu.get("brand_raw") or platform.processor() or "unknown",
            "vendor": cpu.get("vendor_id_raw"),
            "family": cpu.get("family"),
            "model": cpu.get("model"),
            "stepping": cpu.get("stepping"),
            "architecture": platform.machine(),
            "vector_flags": [flag for flag in _FLAGS if flag in flags],
            "virtual": "hypervisor" in flags,
        },
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
        "memory_gib": _memory(),
        "os": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") / 2**30)
    except ValueError:  # not everywhere by these names
        return None


def usable_cores() -> int:
    """Cores that all contestants can use: NUMBA_NUM_THREADS can make the engine's fewer than those allowed."""
    return min(allowed_cores(), getattr(config, "NUMBA_NUM_THREADS"))  # noqa: B009 (set when Numba is imported)


def describe(machine: dict[str, Any]) -> str:
    """One line for a caption: CPU, widest vectors, usable cores, torch version."""
    flags = machine["cpu"]["vector_flags"]
    widest = next((flag for flag in ("avx512_vpopcntdq", "avx512f", "avx2", "sve", "asimd") if flag in flags), "scalar")
    cores = machine["usable_cores"]
    return (
        f"{machine['cpu']['name']} (family {machine['cpu']['family']}, model {machine['cpu']['model']}, {widest}), "
        f"{cores} usable core{'s' * (cores > 1)}, torch {machine['libraries']['torch']}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
