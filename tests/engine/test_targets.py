"""The generated code holds on CPUs without AVX-512: the engine's tests once more, compiled for lesser targets."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

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
    wide = "from xnornet.engine.vector import WIDE; assert not WIDE, 'the target is not lowered'"
    environment = {**os.environ, **lowered}
    subprocess.run([sys.executable, "-c", wide], env=environment, check=True, cwd=TESTS.parents[1])
    tests = [str(TESTS / "test_layers.py"), str(TESTS / "test_network.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, env=environment, cwd=TESTS.parents[1], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
