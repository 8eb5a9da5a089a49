"""What this process has of the CPU: cores, and whether it computes in bfloat16."""

import os

import torch


def allowed_cores() -> int:
    """Cores that this process may run on: a container or taskset can make them fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; where it does not, torch imitates it, in several times float32's time."""
    return any(here for name, here in torch.cpu.get_capabilities().items() if "bf16" in name)
