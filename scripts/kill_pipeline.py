"""Kill the pipeline at random moments, let `dvc repro` finish it, and compare the end with an undisturbed run.

Usage: python scripts/kill_pipeline.py [--kills 30] [--seed 0]. In copies of the repository in a temporary folder, on
the set `digits`, everything cut to seconds. Each kill starts from nothing: SIGKILL to the stage, to DVC, or to both
in turns, at a moment drawn over the whole length of the undisturbed run. Exit status 1 if an end differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from workspace import copy_repository, cut_to_seconds, digests, edit_params, environment, unequal

VICTIMS = ("the stage", "dvc", "both")


def repro(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `dvc repro` as the leader of a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=environment(folder), stdout=output, stderr=output, start_new_session=True
        )


def stages_of(group: int) -> list[int]:
    """Processes of the group that run a stage script."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if os.getpgid(int(entry.name)) == group and any(part.startswith(b"stages/") for part in command):
                    found.append(int(entry.name))
            except (OSError, ProcessLookupError):
                continue
    return found


def kill(process: subprocess.Popen[bytes], victim: str) -> bool:
    """SIGKILL to `victim`; what it was running is not asked. Whether there was one left to kill."""
    if process.poll() is not None:
        return False
    if victim == "both":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "dvc":
        process.kill()
    else:
        stages = stages_of(process.pid)
        for stage in stages:
            with suppress(ProcessLookupError):
                os.kill(stage, signal.SIGKILL)
        return bool(stages)
    return True


def last_stage(log: Path) -> str:
    """Name of the last stage that DVC says it ran."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("Running stage")]
    return lines[-1].split("'")[1] if lines else "before the first stage"


def undisturbed(folder: Path) -> tuple[dict[str, str], float]:
    """(results, seconds) of a run that nobody kills."""
    start = time.monotonic()
    log = folder.parent / "undisturbed.log"
    if repro(folder, log).wait():
        sys.exit(f"the undisturbed run failed:\n{log.read_text(encoding='utf-8')}")
    return digests(folder), time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    identical = 0
    with tempfile.TemporaryDirectory(prefix="xnornet-kill-") as temporary:
        original = Path(temporary) / "original"
        original.mkdir()
        copy_repository(original)
        cut_to_seconds(original, ["digits"])
        # Long enough that a good part of the kills falls into a training, and its checkpoints matter.
        edit_params(original, {"digits.float.epochs": 12, "digits.xnor.epochs": 12})
        fresh = Path(temporary) / "fresh"
        shutil.copytree(original, fresh)
        wanted, seconds = undisturbed(original)
        print(f"undisturbed: {seconds:.0f} s, {len(wanted)} results to compare", flush=True)
        for number in range(options.kills):
            folder, log = Path(temporary) / f"run {number}", Path(temporary) / f"{number}.log"
            shutil.copytree(fresh, folder)
            victim, moment = VICTIMS[number % len(VICTIMS)], rng.uniform(0.5, seconds)
            process = repro(folder, log)
            time.sleep(moment)
            while not kill(process, victim):  # between two stages, or after the last
                if process.poll() is not None:
                    shutil.rmtree(folder)
                    log.unlink()
                    shutil.copytree(fresh, folder)
                    moment = rng.uniform(0.5, seconds)
                    process = repro(folder, log)
                    time.sleep(moment)
            process.wait()
            where = last_stage(log)
            status = repro(folder, log).wait()
            differing = unequal(wanted, digests(folder)) if status == 0 else ["dvc repro failed"]
            identical += not differing
            print(
                f"{number + 1:3} {victim:9} killed after {moment:5.1f} s, in {where}: {differing or 'identical'}",
                flush=True,
            )
            if status:
                print(log.read_text(encoding="utf-8"))
            shutil.rmtree(folder)
    print(f"{identical} of {options.kills} identical")
    sys.exit(identical < options.kills)


if __name__ == "__main__":
    main()
