"""params.yaml: every wrong key or value is named, with its place."""

import re
from pathlib import Path

import pytest

from xnornet.params import Dataset, ParamsError, known, load

PARAMS = Path(__file__).parents[1] / "params.yaml"


def with_change(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of params.yaml in which the first match of the pattern `old` is replaced: recipes may change."""
    text, changed = re.subn(old, new, PARAMS.read_text(), count=1)
    assert changed
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_the_committed_file_is_valid() -> None:
    params = load(PARAMS)
    assert params.dataset("mnist").variant("xnor").gradient == "corrected"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"epochs: \d+", "epochs: 0", r"mnist\.float\.epochs: .*greater than 0 \(it is 0\)"),
        (r"epochs: \d+", "epochs: 2.5", r"mnist\.float\.epochs: .*integer.*2\.5"),
        (r"epochs: \d+", "epochs: '3'", r"mnist\.float\.epochs: .*integer.*'3'"),
        (
            "learning_rate: 0.05",
            "learning_rate: -0.1",
            r"mnist\.float\.learning_rate: .*greater than 0 \(it is -0\.1\)",
        ),
        (r"learning_rate: 0\.05", "learning_rate: .nan", r"mnist\.float\.learning_rate"),
        (r"learning_rate: 0\.05", "learning_rat: 0.05", r"mnist\.float\.learning_rat: unknown parameter"),
        (
            r"datasets:\n- mnist",
            "datasets:\n- cifar10",
            r"datasets: cifar10 is named twice in \['cifar10', 'cifar10'\]",
        ),
        (r"batches:\n  - 1", "batches:\n  - 64", r"bench\.batches: 64 is named twice"),
        ("gradient: corrected", "gradient: exact", r"mnist\.xnor\.gradient: .*'corrected', 'paper', 'det"),
        *(
            (
                f"{name}: false",
                f"{name}: true",
                rf"mnist: .*xnor\.{name} is true, .* no residual stream: set it to false",
            )
            for name in ("residual_relu", "normed_shortcut")
        ),
        (
            r"    paper:\n      gradient: paper\n",
            "    paper: {gradient: paper, input_scaling: false, output_norm: false, residual_relu: false, "
            "normed_shortcut: false, centre: true, clamp: true}\n",
            r"study: one arm must give all of gradient, .*, clamp, the others .*: corrected and paper give",
        ),
        (r"      clamp: true\n    paper", "    paper", r"study: one arm must give all of .*: none does"),
        ("name: lenet5", "name: alexnet", r"mnist\.model: .*'lenet5', 'resnet18'"),
        ("name: lenet5", "name: lenet5\n    width: 3", r"mnist\.model\.width: unknown parameter"),
        ("- mnist", "- imagenet", r"datasets\.0: .*'mnist'.*imagenet"),
        (
            r"warmup_epochs: 2\.0",
            "warmup_epochs: 300",
            r"mnist\.float: warmup_epochs 300.* must be less than epochs \d+",
        ),
        (
            r"warmup_epochs: 2\.0",
            "warmup_epochs: 2.0\n    restarts: [{after: 9, learning_rate: 0.01}, {after: 7, learning_rate: 0.01}]",
            r"mnist\.float: .*restarts must be in order and before the end.*: epochs 9 to 7 are not",
        ),
        (
            r"warmup_epochs: 2\.0",
            "warmup_epochs: 2.0\n    restarts: [{after: 24, learning_rate: 0.01}]",
            r"mnist\.float: .*epochs 24 to 24 are not",
        ),
        (
            "compile: false",
            "compile: maybe",
            r"^[^\n]*mnist\.float\.compile: .*True, False or 'auto' \(it is 'maybe'\)$",
        ),
        ("compile: false", "compile: 1", r"mnist\.float\.compile: must be True, False or 'auto' \(it is 1\)$"),
        (
            "    - without clamping\n",
            "    - without lamping\n",
            r"params\.yaml: mnist\.study\.arms: unknown arm 'without lamping': choose from 'corrected', 'paper', ",
        ),
        (
            "    - learning rate 0.01\n",
            "",
            r"mnist\.study\.arms: 'learning rate 0\.01, paper' is compared with 'learning rate 0\.01': add that arm",
        ),
        ("image_size: 28", "image_size: 16", r"mnist: study\.image_size must be 28 for lenet5, not 16$"),
        ("image_size: 16 .*", "image_size: 33", r"cifar10: study\.image_size must be 8 to 32 for resnet18, not 33$"),
        ("image_size: 28", "image_size: 28\n    width: 4", r"mnist: study\.width is 4, but lenet5 has no width"),
        ("runtime:", "runtimes:", r"runtimes: unknown parameter"),
        ("  device: auto", "  device: tpu", r"runtime\.device: .*tpu"),
        ("  seed: 0", "  seed: 0\n  seed: 1", r'not valid YAML: found duplicate key "seed" .*, line \d+$'),
        ("  seed: 0", "\tseed: 0", r"not valid YAML"),
        ("  seed: 0", "  seed: 2024-13-45", r"not valid YAML: month must be in 1..12"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        load(with_change(tmp_path, old, new))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"mnist\.float\.optimizer: missing"):
        load(with_change(tmp_path, r"    optimizer: sgd .*\n", ""))


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    assert load(with_change(tmp_path, r"learning_rate: 0\.05", "learning_rate: 5e-2")).mnist.float.learning_rate == 0.05
    assert load(with_change(tmp_path, r"batch_size: \d+", "batch_size: 0100")).mnist.float.batch_size == 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"epochs: \d+", "epochs: 1:30", r"mnist\.float\.epochs: .*integer.*'1:30'"),  # 90 in YAML 1.1
        ("channels_last: true", "channels_last: yes", r"mnist\.training\.channels_last: .*boolean.*'yes'"),
    ],
)
def test_what_dvc_reads_as_text_is_no_number(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        load(with_change(tmp_path, old, new))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="run from the repository's root"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes().replace(b"\n", b"\r\n"))
    assert load(tmp_path / "params.yaml") == load(PARAMS)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ParamsError, match="unknown data set 'imagenet': choose from mnist, cifar10, digits, shapes"):
        known("data set", "imagenet", Dataset)
