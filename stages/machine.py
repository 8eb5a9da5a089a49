"""Write down what this machine is: metrics/machine.json."""

from xnornet.bench.machine import fingerprint
from xnornet.files import write_json
from xnornet.stage import stage


def main() -> None:
    write_json("metrics/machine.json", fingerprint())


if __name__ == "__main__":
    with stage():
        main()
