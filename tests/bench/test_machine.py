import json
import platform
import re
import socket
import subprocess
import sys

import numpy as np

from xnornet.bench.machine import describe, fingerprint, usable_cores


def test_fingerprint_is_the_same_in_another_process() -> None:
    """A timing stage depends on the file: any difference would time everything again."""
    program = "import json; from xnornet.bench.machine import fingerprint; print(json.dumps(fingerprint()))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == fingerprint()


def test_fingerprint_says_what_it_should_and_no_more() -> None:
    machine = fingerprint()
    assert machine["usable_cores"] == usable_cores() >= 1
    assert machine["cores"] >= machine["usable_cores"]
    assert machine["memory_gib"] > 0
    assert machine["python"] == platform.python_version()
    assert machine["libraries"]["numpy"] == np.__version__
    assert machine["cpu"]["name"]
    assert socket.gethostname() not in re.findall(r"[\w.-]+", json.dumps(machine))


def test_an_absent_library_is_null(monkeypatch) -> None:
    monkeypatch.setattr("xnornet.bench.machine._LIBRARIES", ("numpy", "no-such-library"))
    assert fingerprint()["libraries"] == {"numpy": np.__version__, "no-such-library": None}


def test_what_numba_compiles_for_is_part_of_it(monkeypatch) -> None:
    before = fingerprint()
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "-avx2")
    assert fingerprint()["environment"]["NUMBA_CPU_FEATURES"] == "-avx2"
    assert fingerprint() != before


def test_describe_fits_a_caption() -> None:
    line = describe(fingerprint())
    assert "\n" not in line
    assert "usable core" in line
