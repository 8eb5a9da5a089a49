import os

import pytest
import torch

from xnornet.cpu import allowed_cores, has_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"neon": True, "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_is_asked_of_the_cpu(
    capabilities: dict[str, bool], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16() == has


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not limit a process to some cores")
def test_a_process_held_to_one_core_may_use_one() -> None:
    before = os.sched_getaffinity(0)
    assert allowed_cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert allowed_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
