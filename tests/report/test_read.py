"""Reading metrics/ and plots/: what is missing or wrong is named, with its file, and nothing is written."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest

from xnornet.params.timing import Axis
from xnornet.report import ReportError, Results, build
from xnornet.report.build import render


def test_a_picture_that_is_cut_short_is_named(results: Results) -> None:
    path = results.root / "plots/samples/mnist.png"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:33] + b"\xff" + whole[34:], b"no picture"):
        path.write_bytes(damaged)
        with pytest.raises(ReportError, match=r"plots/samples/mnist\.png is no picture: delete it"):
            results.samples("mnist")


WITHOUT_LAW = {"image_size", "batch", "threads"}
"""Sweeps whose peaks are looked at only where the speed-up varies, which these results' does not."""


def all_inputs() -> list[str]:
    names = ["metrics/machine.json"]
    names += [f"metrics/{kind}/mnist.json" for kind in ("data", "packed", "memory", "pace", "study")]
    names += [
        f"metrics/{kind}/mnist-{v}.json" for kind in ("train", "time", "settings", "seeds") for v in ("float", "xnor")
    ]
    names += [f"plots/{kind}/mnist-{v}.csv" for kind in ("curves", "predictions", "weights") for v in ("float", "xnor")]
    names += [f"plots/{kind}/mnist.csv" for kind in ("memory", "inference", "study")]
    names += [
        "plots/samples/mnist.png",
        "plots/layers.csv",
        "metrics/layers.json",
    ]
    names += [f"plots/seeds/mnist-{v}.csv" for v in ("float", "xnor")]
    names += [f"plots/sweeps/{axis}.csv" for axis in get_args(Axis)]
    names += [f"metrics/sweeps/{axis}.json" for axis in get_args(Axis) if axis not in WITHOUT_LAW]
    return names


def test_all_inputs_are_tried(results: Results) -> None:
    written = {path.relative_to(results.root).as_posix() for path in results.root.rglob("*") if path.is_file()}
    assert written - set(all_inputs()) == {f"metrics/sweeps/{axis}.json" for axis in WITHOUT_LAW}


@pytest.mark.parametrize("path", all_inputs())
def test_a_missing_file_is_named(path: str, results: Results, tmp_path: Path) -> None:
    (results.root / path).unlink()
    with pytest.raises(ReportError, match=re.escape(f"{path} is missing: make it with `dvc repro`")):
        build(results, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "written before all was read"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("metrics/pace/mnist.json", ("mnist", "pace", "precision")),
        ("metrics/pace/mnist.json", ("mnist", "pace", "xnor", "iqr_seconds")),
        ("metrics/study/mnist.json", ("mnist", "study", "paper", "low")),
        ("metrics/machine.json", ("usable_cores",)),
        ("metrics/machine.json", ("cpu", "vendor")),
        ("metrics/settings/mnist-xnor.json", ("optimization", "gradient")),
        ("metrics/layers.json", ("layers", "peak_popcount_gmacs")),
        ("metrics/packed/mnist.json", ("mnist", "packed", "same_answers")),
        ("metrics/time/mnist-float.json", ("mnist", "float", "threads")),
        ("metrics/seeds/mnist-xnor.json", ("mnist", "xnor", "seeds", "std")),
        ("metrics/settings/mnist-xnor.json", ("optimization", "cutmix")),
        ("metrics/settings/mnist-float.json", ("optimization", "precision")),
        ("metrics/settings/mnist-float.json", ("model", "name")),
    ],
)
def test_a_missing_key_is_named(path: str, keys: tuple[str, ...], results: Results) -> None:
    content = block = json.loads((results.root / path).read_text())
    for key in keys[:-1]:
        block = block[key]
    del block[keys[-1]]
    (results.root / path).write_text(json.dumps(content))
    with pytest.raises(ReportError, match=re.escape(f"{path} has no {'.'.join(keys)}: delete it and run `dvc repro`")):
        render(results)


@pytest.mark.parametrize("column", ["milliseconds_per_image", "iqr", "times_packed"])
def test_a_missing_column_of_times_is_named(column: str, results: Results) -> None:
    path = results.root / "plots/inference/mnist.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(ReportError, match=f"plots/inference/mnist.csv has no column {column}"):
        render(results)


@pytest.mark.parametrize("contestant", ["packed", "torch float32"])
def test_missing_times_are_named(contestant: str, results: Results) -> None:
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    rows[~rows.contestant.str.startswith(contestant)].to_csv(path, index=False)
    with pytest.raises(ReportError, match=r"plots/inference/mnist\.csv has no time of .* on 1 thread: delete it"):
        render(results)


def test_wrong_values_are_named_with_file_and_key(results: Results, change: Callable[..., None]) -> None:
    change("metrics/train/mnist-xnor.json", "mnist", "xnor", test_accuracy=float("nan"))
    with pytest.raises(ReportError, match=r"metrics/train/mnist-xnor\.json: mnist\.xnor\.test_accuracy is nan"):
        render(results)
    (results.root / "metrics/train/mnist-xnor.json").write_text('{"mnist": {}}')
    with pytest.raises(ReportError, match=r"mnist-xnor\.json has no mnist\.xnor"):
        render(results)
    (results.root / "metrics/train/mnist-xnor.json").write_text("{")
    with pytest.raises(ReportError, match="is not JSON"):
        render(results)


@pytest.mark.parametrize("value", [None, "98", [98.0]])
@pytest.mark.parametrize(
    ("path", "keys", "name"),
    [
        ("metrics/train/mnist-xnor.json", ("mnist", "xnor"), "test_accuracy"),
        ("metrics/seeds/mnist-float.json", ("mnist", "float", "seeds"), "runs"),
        ("metrics/settings/mnist-xnor.json", ("optimization",), "cutmix"),
        ("metrics/layers.json", ("layers",), "peak_float32_gmacs"),
    ],
)
def test_what_should_be_a_number_is_named(
    path: str, keys: tuple[str, ...], name: str, value: Any, results: Results, change: Callable[..., None]
) -> None:
    change(path, *keys, **{name: value})
    with pytest.raises(ReportError, match=re.escape(f"{path}: {'.'.join([*keys, name])} is {value!r}, not a number")):
        render(results)


@pytest.mark.parametrize(
    "path", ["plots/sweeps/batch.csv", "plots/seeds/mnist-xnor.csv", "plots/curves/mnist-xnor.csv"]
)
def test_a_cell_that_should_be_a_number_is_named(path: str, results: Results, tmp_path: Path) -> None:
    rows = pd.read_csv(results.root / path).astype(object)
    rows.iloc[0, -1] = "much"
    rows.to_csv(results.root / path, index=False)
    with pytest.raises(ReportError, match=f"{path}: column {rows.columns[-1]} has a cell that is not a number"):
        build(results, tmp_path / "out")


def test_predictions_of_other_images_are_not_compared(results: Results, tmp_path: Path) -> None:
    path = results.root / "plots/predictions/mnist-xnor.csv"
    rows = pd.read_csv(path)
    for other in (rows.iloc[:-1], rows.assign(actual=rows.actual.iloc[::-1].to_numpy())):
        other.to_csv(path, index=False)
        with pytest.raises(ReportError, match=r"mnist-float\.csv and -xnor\.csv are not of the same test images"):
            build(results, tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plots/seeds/mnist-xnor.csv", "has two rows of seed 3"),
        ("plots/study/mnist.csv", "has two rows of arm paper, seed 2"),
    ],
)
def test_a_training_that_stands_twice_is_named(path: str, message: str, results: Results) -> None:
    rows = pd.read_csv(results.root / path)
    pd.concat([rows, rows.iloc[-1:]]).to_csv(results.root / path, index=False)
    with pytest.raises(ReportError, match=f"{path} {message}"):
        render(results)


def test_a_study_s_files_of_other_arms_are_named(results: Results) -> None:
    path = results.root / "plots/study/mnist.csv"
    pd.read_csv(path).replace("paper", "detached").to_csv(path, index=False)
    with pytest.raises(ReportError, match=r"mnist\.csv and metrics/study/mnist\.json have not the same arms"):
        render(results)


def test_infinite_times_are_named(results: Results) -> None:
    path = results.root / "plots/inference/mnist.csv"
    rows = pd.read_csv(path)
    rows.loc[0, "milliseconds_per_image"] = math.inf
    rows.to_csv(path, index=False)
    with pytest.raises(ReportError, match="column milliseconds_per_image has an empty or infinite cell"):
        render(results)


@pytest.mark.parametrize("section", ["data", "runtime", "images", "model"])
def test_settings_without_a_section_are_named(section: str, results: Results, change: Callable[..., None]) -> None:
    change("metrics/settings/mnist-xnor.json", **{section: None})
    with pytest.raises(ReportError, match=rf"metrics/settings/mnist-xnor\.json.*{section}"):
        build(results, results.root / "out")


def test_a_study_without_arms_is_named(results: Results) -> None:
    (results.root / "metrics/study/mnist.json").write_text('{"mnist": {"study": {}}}')
    with pytest.raises(ReportError, match=r"metrics/study/mnist\.json has no arms"):
        render(results)


@pytest.mark.parametrize("arm", ["0.01", "None", "NA"])
def test_an_arm_may_have_any_name(arm: str, results: Results, change: Callable[..., None]) -> None:
    path = results.root / "plots/study/mnist.csv"
    rows = pd.read_csv(path).replace("paper", arm)
    rows.replace("corrected", "0.001").to_csv(path, index=False)
    study = json.loads((results.root / "metrics/study/mnist.json").read_text())["mnist"]["study"]
    arms = {"0.001": study["corrected"], arm: study["paper"]}
    (results.root / "metrics/study/mnist.json").write_text(json.dumps({"mnist": {"study": arms}}))
    assert f'validation accuracy is lower with "{arm}" (-0.50 points)' in " ".join(render(results).split())


CURVE = "epoch,learning_rate,train_loss,train_accuracy,validation_accuracy\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch,learning_rate,train_loss,train_accuracy\n1,0.1,0.5,99\n", "has no column validation_accuracy"),
        (f"{CURVE}1,0.1,,99,99\n", "column train_loss has an empty or infinite cell"),
        (f"{CURVE}1,0.1,nan,99,99\n", "column train_loss has an empty or infinite cell"),
        (f"{CURVE}1,0.1,inf,99,99\n", "column train_loss has an empty or infinite cell"),
        (f"{CURVE}1,0.1,-inf,99,99\n", "column train_loss has an empty or infinite cell"),
        (CURVE, "has no rows"),
        ("", "is not a table"),
    ],
)
def test_wrong_tables_are_named(content: str, message: str, results: Results, tmp_path: Path) -> None:
    (results.root / "plots/curves/mnist-xnor.csv").write_text(content)
    with pytest.raises(ReportError, match=rf"plots/curves/mnist-xnor\.csv.*{message}"):
        build(results, tmp_path / "out")
