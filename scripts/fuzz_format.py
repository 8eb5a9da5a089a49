"""Fuzz the reader of packed networks for as long as you like: `python scripts/fuzz_format.py --inputs 1000000`.

With --guided, atheris (`pip install '.[fuzz]'`) chooses what to damage and edit, led by the code that a file reaches;
without, a seeded random generator does, and a failure names its seed.
"""

import argparse
import importlib
import inspect
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' package


class Guided(random.Random):
    """A random generator whose every choice is read from the fuzzer's input; zeros once that is used up."""

    def __new__(cls, data: bytes) -> "Guided":
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.bits = int.from_bytes(data, "little")

    def getrandbits(self, k: int) -> int:
        value = self.bits & ((1 << k) - 1)
        self.bits >>= k
        return value

    def random(self) -> float:
        return self.getrandbits(16) / (1 << 16)

    def randbytes(self, n: int) -> bytes:
        return self.getrandbits(8 * n).to_bytes(n, "little")


def target() -> tuple[Callable[[random.Random, int], None], Counter[str]]:
    """(what is fuzzed: one choice of damage or edit to one of four networks, counts of what became of the files)."""
    from tests.engine import mutations, networks  # noqa: PLC0415 (the tests' package is found by now)

    from xnornet.engine import nodes as limits  # noqa: PLC0415

    limits.LIMIT_WORK = 1 << 24  # edited networks are run, in NumPy too
    originals = []
    for nodes in (networks.RESIDUAL, networks.SCALED, networks.POINT, networks.MANY_CHANNELS):
        network = networks.build(nodes)
        with tempfile.TemporaryDirectory() as folder:
            network.save(Path(folder) / "network")
            originals.append((network, (Path(folder) / "network").read_bytes()))
    seen: Counter[str] = Counter()

    def one(rng: random.Random, number: int) -> None:
        network, data = originals[number % 4]
        if rng.random() < 0.5:
            seen[f"damaged, {mutations.survive(network, mutations.damaged(data, rng))}"] += 1
        else:
            seen[f"edited, {mutations.survive_edit(network, mutations.edited(data, rng))}"] += 1

    return one, seen


def guided(inputs: int) -> None:
    """Let atheris choose; a failure ends the process after printing the input."""
    import atheris  # noqa: PLC0415 (optional)

    one, seen = target()
    # The code that checks. What Numba compiles cannot be instrumented, and sees only files that passed.
    for name in ("file", "graph", "nodes", "builder"):
        for value in vars(importlib.import_module(f"xnornet.engine.{name}")).values():
            for function in (value, *vars(value).values()) if inspect.isclass(value) else (value,):
                if inspect.isfunction(function) and function.__module__ == f"xnornet.engine.{name}":
                    atheris.instrument_func(function)
    done = 0

    def call(data: bytes) -> None:
        nonlocal done
        rng = Guided(data)
        one(rng, rng.getrandbits(2))
        done += 1
        if done == inputs:
            report(seen)
            os._exit(0)  # atheris has no other end than a failure

    atheris.Setup([sys.argv[0], "-max_len=256"], call)
    atheris.Fuzz()


def seeded(inputs: int, first: int) -> None:
    """One seed an input."""
    one, seen = target()
    for seed in range(first, first + inputs):
        try:
            one(random.Random(seed), seed)
        except BaseException:
            print(f"failed at --seed {seed} --inputs 1", file=sys.stderr)
            raise
    report(seen)


def report(seen: Counter[str]) -> None:
    """Print what became of the files."""
    for outcome, count in sorted(seen.items()):
        print(f"{count:10,} {outcome}", flush=True)


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="files to read")
    parser.add_argument("--seed", type=int, default=0, help="first of the seeds, one a file")
    parser.add_argument("--guided", action="store_true", help="let atheris choose")
    options = parser.parse_args()
    if options.guided:
        guided(options.inputs)
    else:
        seeded(options.inputs, options.seed)


if __name__ == "__main__":
    main()
