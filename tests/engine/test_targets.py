"""The generated code holds on other CPUs: the engine's tests again, compiled for lesser targets and other tuning."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xnornet.engine import PackedConv2d
from xnornet.engine.counter import CARRY_SAVE, GROUPS, LOOKUP
from xnornet.engine.op import Kind
from xnornet.engine.vector import WIDE

AVX2 = "+avx2,+avx,+fma,+popcnt,+bmi,+bmi2,+lzcnt,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse,+cx16"
TARGETS = {
    "x86-64": ("x86-64", "+sse2,+sse", (False, False)),
    "avx2": ("haswell", AVX2, (False, True)),
    "avx-512 without popcount": ("skylake-avx512", AVX2 + ",+avx512f,+avx512bw,+avx512dq,+avx512vl", (True, True)),
}
"""LLVM's name of the CPU, its features, and what the engine must make of them: (WIDE, LOOKUP)."""
TESTS = Path(__file__).parent


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the targets are x86's")
@pytest.mark.parametrize("target", TARGETS)
def test_layers_and_networks_on_a_lesser_target(target, tmp_path):
    name, features, wanted = TARGETS[target]
    if wanted[0] > WIDE or wanted[1] > (WIDE or LOOKUP):
        pytest.skip("this CPU has less")
    if wanted == (WIDE, LOOKUP):
        pytest.skip("this CPU is such a one")
    lowered = {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "XNORNET_TEST_EXAMPLES": "25",
    }
    check = "from xnornet.engine.counter import LOOKUP; from xnornet.engine.vector import WIDE"
    run(f"{check}; assert (WIDE, LOOKUP) == {wanted}, 'not the target'", lowered)


@pytest.mark.skipif(not WIDE or LOOKUP, reason="only AVX-512 with a popcount has both ways of counting")
def test_layers_and_networks_with_the_other_way_of_counting(tmp_path):
    """Running xors and carry-save counting differ in tuning alone: each runs wherever the other does."""
    other = {"NUMBA_CPU_NAME": "znver4" if CARRY_SAVE else "icelake-server", "NUMBA_CACHE_DIR": str(tmp_path)}
    check = f"from xnornet.engine.counter import CARRY_SAVE; assert CARRY_SAVE != {CARRY_SAVE}"
    run(check, {**other, "XNORNET_TEST_EXAMPLES": "25"})


def test_words_are_counted_in_groups_where_that_pays():
    """Without the groups all sums would be the same, and no other test would see it."""
    assert ((8, 4) if WIDE and not LOOKUP and not CARRY_SAVE else ()) == GROUPS
    program = PackedConv2d(np.ones((1, 256, 3, 3), np.float32))._make_float("float", (5, 5, 256))
    assert (Kind.RUNNING_CONV in [step["kind"] for step in program.steps]) == bool(GROUPS)


def run(check, variables):
    environment = {**os.environ, **variables}
    subprocess.run([sys.executable, "-c", check], env=environment, check=True, cwd=TESTS.parents[1])
    tests = [str(TESTS / f"test_{name}.py") for name in ("layers", "network", "running")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, cwd=TESTS.parents[1], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
