"""Two runs of the pipeline give the same bytes, a remote brings them back, and `make verify` sees what is not so."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from workspace import copy_repository, cut_to_seconds, digests, edit_params, environment, unequal  # noqa: E402 (a script)

TIMINGS = {"machine", "bench", "layers", "pace", "sweep", "report"}


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def run(folder: Path, *command: str, status: int = 0) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), check=False, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def stages_run(output: str) -> set[str]:
    """Kinds of the stages that ran, without what they were run for."""
    return {name.split("@")[0] for name in re.findall(r"Running stage '([^']+)'", output)}


def clone(original: Path, folder: Path) -> Path:
    git(original.parent, "clone", "--quiet", str(original), str(folder))
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = false\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository after `dvc repro`, committed, in a path with spaces and letters of many kinds."""
    folder = tmp_path_factory.mktemp("größe ±1 网络") / "a copy"
    folder.mkdir()
    copy_repository(folder)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = false\n", encoding="utf-8")
    cut_to_seconds(folder, ["digits", "shapes"])
    git(folder, "init", "--quiet")
    run(folder, "dvc", "repro")
    run(folder, sys.executable, "scripts/readme.py")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "results")
    return folder


def test_a_second_run_elsewhere_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    other = clone(built, tmp_path / "another folder")
    for name in ("metrics", "plots", "models", "dvc.lock", "REPORT.md"):
        path = other / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert {"prepare", "train", "seeds", "study", "export", *TIMINGS} == stages_run(run(other, "dvc", "repro"))
    wanted = digests(built)
    assert len(wanted) > 70 and any("REPORT.md, Accuracy" in name for name in wanted)
    assert not unequal(wanted, digests(other))


def test_other_weights_would_be_noticed(built: Path, tmp_path: Path) -> None:
    """The comparison itself can fail."""
    other = tmp_path / "copy"
    shutil.copytree(built, other, symlinks=True)
    path = other / "models/digits-xnor.safetensors"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert unequal(digests(built), digests(other)) == ["models/digits-xnor.safetensors"]


def test_a_clone_says_that_there_is_no_remote_and_runs_again(built: Path, tmp_path: Path) -> None:
    other = clone(built, tmp_path / "clone")
    assert "no default remote set" in run(other, "dvc", "pull", status=1)
    assert "digits-xnor.safetensors" in run(other, "dvc", "status")


def test_with_a_remote_a_clone_runs_nothing(built: Path, tmp_path: Path) -> None:
    """A local folder as remote: push here; clone, pull and repro there."""
    run(built, "dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path / "remote"))
    run(built, "dvc", "push")
    other = clone(built, tmp_path / "clone")
    run(other, "dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path / "remote"))
    run(other, "dvc", "pull")
    assert stages_run(run(other, "dvc", "repro")) == {"machine"}, "timings run again on another machine only"
    assert not unequal(digests(built), digests(other))


def test_a_deleted_cache_is_filled_again_from_the_results(built: Path) -> None:
    """Without `dvc commit`, `dvc repro` would train again."""
    shutil.rmtree(built / ".dvc/cache")
    run(built, "dvc", "commit", "--force")
    assert stages_run(run(built, "dvc", "repro")) == {"machine"}


def test_two_at_a_time(built: Path) -> None:
    """The second `dvc repro` is told of the first, and nothing is lost."""
    wanted = digests(built)
    edit_params(built, {"digits.study.epochs": 2})
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(["dvc", "repro"], cwd=built, env=environment(built), **output) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert min(process.returncode for process in both) == 0
    refused = [text for process, text in zip(both, said, strict=True) if process.returncode]
    assert all("lock" in text.lower() for text in refused), refused
    git(built, "checkout", "--quiet", "params.yaml")
    run(built, "dvc", "repro")
    assert not unequal(wanted, digests(built))


def append(line: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")

    return change


def replace(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def other_data(path: Path) -> None:
    """Data that the clone has not got from DVC, whose cache therefore lacks them."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"other data")


@pytest.mark.parametrize(
    ("path", "change", "complaint"),
    [
        ("params.yaml", replace("learning_rate: 0.05", "learning_rate: 0.06"), "digits.float of params.yaml"),
        ("src/xnornet/nn/binarize.py", append("\n"), "src/xnornet/nn is modified"),
        (
            "metrics/train/digits-xnor.json",
            replace('"epochs": 1', '"epochs": 9'),
            "metrics/train/digits-xnor.json is mod",
        ),
        ("metrics/memory/digits.json", Path.unlink, "metrics/memory/digits.json is deleted"),
        ("REPORT.md", append("Better than ever.\n"), "REPORT.md is modified"),
        ("README.md", replace("digits, LeNet-5", "DIGITS"), "README.md: its tables are not REPORT.md's"),
        ("data/digits.safetensors", other_data, "data/digits.safetensors is modified"),
        ("REPORT.md", Path.unlink, "REPORT.md is deleted"),
        ("README.md", Path.unlink, "README.md is missing"),
        ("README.md", replace("<!-- /summary -->", ""), "README.md must have one place marked <!-- summary: ... -->"),
    ],
)
def test_verify_names_what_does_not_belong(
    path: str, change: Callable[[Path], None], complaint: str, built: Path, tmp_path: Path
) -> None:
    other = clone(built, tmp_path / "clone")
    assert "belong together" in run(other, sys.executable, "scripts/verify.py")
    change(other / path)
    assert complaint in run(other, sys.executable, "scripts/verify.py", status=1)


def test_verify_leaves_out_what_is_not_in_this_pipeline(built: Path, tmp_path: Path) -> None:
    other = clone(built, tmp_path / "clone")
    edit_params(other, {"datasets": ["digits"]})
    run(other, "dvc", "repro", "--single-item", "report")
    said = run(other, sys.executable, "scripts/verify.py")
    lock = other / "dvc.lock"
    for stray in ("old@digits", "train@digits-other"):
        text = lock.read_text()
        lock.write_text(text + f"  {stray}:\n    cmd: python\n")
        assert f"{stray}: in dvc.lock, but not in dvc.yaml" in run(other, sys.executable, "scripts/verify.py", status=1)
        lock.write_text(text)
    assert "since params.yaml has other `datasets` or `variants`: README.md, " in said and "train@shapes-xnor" in said
    edit_params(other, {"datasets": ["digits", "mnist"]})
    assert "train@mnist-xnor: never run here" in run(other, sys.executable, "scripts/verify.py", status=1)
