"""Write down what this machine is: metrics/machine.json."""

from xnornet.bench.machine import fingerprint
from xnornet.files import write_json
from xnornet.params import load
from xnornet.stage import stage


def main() -> None:
    load()  # the pipeline begins here: what is wrong in params.yaml is said before anything else runs
    write_json("metrics/machine.json", fingerprint())


if __name__ == "__main__":
    with stage():
        main()
