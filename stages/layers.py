"""Time single layers, our engine beside every other installed: plots/layers.csv, metrics/layers.json."""

from dataclasses import asdict

from xnornet.bench.layer import measure
from xnornet.bench.workload import LAYERS, Layer
from xnornet.files import write_csv, write_json
from xnornet.layer_table import ratios
from xnornet.params import load
from xnornet.stage import stage


def main() -> None:
    params = load()
    layers: dict[str, Layer] = {name: LAYERS[name] for name in params.layers.names}
    rows, peaks = measure(layers, repeats=params.layers.repeats, with_peers=params.bench.peers)
    metrics = {
        **{title: row.dropna().round(3).to_dict() for title, row in ratios(rows, asdict(peaks)).iterrows()},
        "noisy_times": int(rows.noisy.sum()),
        "peak_popcount_gmacs": round(peaks.popcount, 1),
        "peak_float32_gmacs": round(peaks.float32, 2),
    }
    write_csv("plots/layers.csv", rows)
    write_json("metrics/layers.json", {"layers": metrics})


if __name__ == "__main__":
    with stage():
        main()
