"""Fuzz the reader of packed networks for as long as you like: `python scripts/fuzz_format.py --inputs 1000000`."""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' package

from tests.engine import mutations, networks
from xnornet.engine import nodes as limits


def main() -> None:
    """Damage and edit files of two networks in turn; print what became of them, or the seed of the one that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="mutated files to read")
    parser.add_argument("--seed", type=int, default=0, help="first of the seeds, one a file")
    options = parser.parse_args()
    limits.LIMIT_WORK = 1 << 24  # type: ignore[misc]  # edited networks are run, in NumPy too
    originals = []
    for nodes in (networks.RESIDUAL, networks.SCALED):
        network = networks.build(nodes)
        with tempfile.TemporaryDirectory() as folder:
            network.save(Path(folder) / "network")
            originals.append((network, (Path(folder) / "network").read_bytes()))
    seen: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.inputs):
        rng = random.Random(seed)
        network, data = originals[seed % 2]
        try:
            if rng.random() < 0.8:
                seen[f"damaged, {mutations.survive(network, mutations.damaged(data, rng))}"] += 1
            else:
                seen[f"edited, {mutations.survive_edit(network, mutations.edited(data, rng))}"] += 1
        except BaseException:
            print(f"failed at --seed {seed} --inputs 1", file=sys.stderr)
            raise
    for outcome, count in sorted(seen.items()):
        print(f"{count:10,} {outcome}")


if __name__ == "__main__":
    main()
