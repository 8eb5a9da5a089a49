"""The generated code holds on other CPUs: the engine's tests again, compiled for lesser targets and other tuning."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from xnornet.engine.counter import CARRY_SAVE
from xnornet.engine.vector import WIDE

TARGETS = {
    "avx2": ("haswell", "+avx2,+avx,+fma,+popcnt,+bmi,+bmi2,+lzcnt,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse,+cx16"),
    "x86-64": ("x86-64", "+sse2,+sse"),
}
TESTS = Path(__file__).parent


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the targets are x86's")
@pytest.mark.parametrize("target", TARGETS)
def test_layers_and_networks_on_a_lesser_target(target, tmp_path):
    name, features = TARGETS[target]
    lowered = {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "XNORNET_TEST_EXAMPLES": "25",
    }
    run("from xnornet.engine.vector import WIDE; assert not WIDE, 'the target is not lowered'", lowered)


@pytest.mark.skipif(not WIDE, reason="only AVX-512 has both ways of counting")
def test_layers_and_networks_with_the_other_way_of_counting(tmp_path):
    """Plain and carry-save counting differ in tuning alone: each runs wherever the other does."""
    other = {"NUMBA_CPU_NAME": "znver4" if CARRY_SAVE else "icelake-server", "NUMBA_CACHE_DIR": str(tmp_path)}
    check = f"from xnornet.engine.counter import CARRY_SAVE; assert CARRY_SAVE != {CARRY_SAVE}"
    run(check, {**other, "XNORNET_TEST_EXAMPLES": "25"})


def run(check, variables):
    environment = {**os.environ, **variables}
    subprocess.run([sys.executable, "-c", check], env=environment, check=True, cwd=TESTS.parents[1])
    tests = [str(TESTS / "test_layers.py"), str(TESTS / "test_network.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, cwd=TESTS.parents[1], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
