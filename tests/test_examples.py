"""What README sends people to runs, and gives what it says."""

import re
import subprocess
import sys
from pathlib import Path

from xnornet.engine import PackedNetwork

ROOT = Path(__file__).parents[1]


def test_a_network_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    command = [sys.executable, str(ROOT / "examples/own_network.py"), str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    accuracy = re.search(r"([\d.]+) % of 397 images right, packed", printed)
    difference = re.search(r"differ from torch's by (\S+) at most", printed)
    assert accuracy and float(accuracy[1]) > 90
    assert difference and float(difference[1]) < 1e-4
    assert PackedNetwork.load(path).about["classes"][3] == "3"
