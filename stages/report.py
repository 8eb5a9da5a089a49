"""Tables, figures and REPORT.md from metrics/ and plots/ alone."""

from pathlib import Path

from xnornet.params import load
from xnornet.report import Results, build
from xnornet.stage import stage


def main() -> None:
    build(Results(".", load().datasets), Path())


if __name__ == "__main__":
    with stage():
        main()
