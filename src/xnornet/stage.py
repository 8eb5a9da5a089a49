"""What every stage script shares: an expected error ends it with one line in place of a traceback."""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stage() -> Iterator[None]:
    """Run a stage: errors that say what to change, and Ctrl-C, end it with one line and a non-zero status.

    Those are our own exceptions and the system's (disk full, no permission). Any other is a defect and keeps its
    traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last checkpoint")
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.startswith("xnornet"):
            sys.exit(f"error: {error}")
        raise


def arguments(description: str, *names: str) -> list[str]:
    """The command line's positional arguments, in the order of `names`."""
    parser = argparse.ArgumentParser(description=description)
    for name in names:
        parser.add_argument(name)
    values = vars(parser.parse_args())
    return [values[name] for name in names]


def md5(path: str | Path) -> str:
    """md5 of a file in hexadecimal, which is also DVC's name for it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
