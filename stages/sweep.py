"""Time one binary layer along one axis of its shape: plots/sweeps/<axis>.csv, metrics/sweeps/<axis>.json."""

from xnornet.bench.sweeps import sweep
from xnornet.files import write_csv, write_json
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (axis,) = arguments(__doc__, "axis")
    params = load().sweep
    rows, peaks = sweep(
        axis,
        params.values(axis),
        passes=params.passes,
        repeats=params.repeats,
        budget_seconds=params.seconds_per_point,
    )
    write_csv(f"plots/sweeps/{axis}.csv", rows)
    metrics = {
        "speedup": {str(row.value): round(row.speedup_torch, 2) for row in rows.itertuples()},
        "noisy_points": int(rows.noisy.sum()),
        "peak_popcount_gmacs": round(peaks.popcount, 1),
        "peak_float32_gmacs": round(peaks.float32, 2),
    }
    write_json(f"metrics/sweeps/{axis}.json", {"sweep": {axis: metrics}})


if __name__ == "__main__":
    with stage():
        main()
