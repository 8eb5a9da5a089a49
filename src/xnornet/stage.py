"""What every stage script shares: an expected error ends it with one line in place of a traceback."""

import argparse
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stage() -> Iterator[None]:
    """Run a stage: errors that say what to change, and Ctrl-C, end it with one line and a non-zero status.

    Those are our own exceptions and the system's (disk full, no permission). Any other is a defect and keeps its
    traceback. The same stage is never run twice at a time: a second one waits.
    """
    try:
        with _alone("-".join([Path(sys.argv[0]).stem, *sys.argv[1:]])):
            yield
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command again; a training or study goes on where it was")
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.startswith("xnornet"):
            sys.exit(f"error: {error}")
        raise


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold the lock of this name in .ckpt/locks.

    Where DVC alone was killed, its stage lives on, and the next `dvc repro` starts the same stage beside it; both would
    write the same files, and DVC would note the digests of one and keep the files of the other.
    """
    path = Path(".ckpt/locks") / (re.sub(r"[^\w.-]", "_", name)[:100] + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            process = file.read() or "(number not written yet)"
            print(
                f"{name}: waiting for another run of this stage, process {process}, to end. (It began first, and this "
                f"one will then do the same again. To have this one go on from its last checkpoint: kill {process})",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # this number may soon be another process's


def arguments(description: str, *names: str) -> list[str]:
    """The command line's positional arguments, in the order of `names`."""
    parser = argparse.ArgumentParser(description=description)
    for name in names:
        parser.add_argument(name)
    values = vars(parser.parse_args())
    return [values[name] for name in names]
