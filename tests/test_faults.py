"""A stage on a full disk, in a folder it may not write to, with garbled parameters, interrupted, run twice at once."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from workspace import copy_repository, cut_to_seconds, edit_params, environment  # noqa: E402 (a script)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, everything cut to seconds, with `digits` prepared; in a path of any letters."""
    folder = tmp_path_factory.mktemp("größe ±1 网络")
    copy_repository(folder)
    cut_to_seconds(folder, ["digits"])
    assert run(folder, "prepare.py", "digits").returncode == 0
    return folder


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that, to be spoiled."""
    return Path(shutil.copytree(prepared, tmp_path / "a copy"))


def start(
    folder: Path, script: str, *arguments: str, prefix: Sequence[str] = (), **options: Any
) -> "subprocess.Popen[str]":
    command = [*prefix, sys.executable, f"stages/{script}", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(folder), **output, **options)


def run(folder: Path, script: str, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    process = start(folder, script, *arguments, **options)
    output, _ = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output)


def fails_with(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """It ended with an error that has these words, and not with a traceback."""
    assert done.returncode == 1 and "Traceback" not in done.stdout, done.stdout
    error = done.stdout[done.stdout.rindex("error: ") :]
    for word in words:
        assert word in error, error


def powerless() -> list[str]:
    """What to write before a command for it to have no more than a user's permissions: root may do anything."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root needs setpriv to give up its permissions")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part*"))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own at `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("folder", "script"),
    [("data", "prepare.py digits"), ("models", "train.py digits xnor"), (".ckpt/digits-xnor", "train.py digits xnor")],
)
def test_a_full_disk(folder: str, script: str, copy: Path, tmp_path: Path) -> None:
    if folder == "data":
        shutil.rmtree(copy / "data")
    (copy / folder).parent.mkdir(exist_ok=True)
    disk = tmp_path / "disk"
    with mounted(disk, "size=256k"):
        (copy / folder).symlink_to(disk)
        fails_with(run(copy, *script.split()), "No space left on device")
        assert not list(disk.iterdir()), "half a file is left"


def test_a_folder_that_must_not_be_written_to(copy: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"):
        (copy / "models").symlink_to(tmp_path / "disk")
        fails_with(run(copy, "train.py", "digits", "xnor"), "Read-only file system", "models")
    (copy / "models").unlink()
    again = run(copy, "train.py", "digits", "xnor")
    assert again.returncode == 0 and "going on after epoch" in again.stdout, "the training is lost"


@pytest.mark.parametrize(
    ("path", "mode"),
    [("models", 0o555), (".ckpt", 0o555), ("data/digits.safetensors", 0o000), ("params.yaml", 0o000)],
)
def test_no_permission(path: str, mode: int, copy: Path) -> None:
    forbidden = copy / path
    if not forbidden.exists() and not forbidden.suffix:
        forbidden.mkdir()
    usual = forbidden.stat().st_mode
    forbidden.chmod(mode)
    try:
        fails_with(run(copy, "train.py", "digits", "xnor", prefix=powerless()), "Permission denied", path)
    finally:
        forbidden.chmod(usual)
    assert run(copy, "train.py", "digits", "xnor").returncode == 0
    assert not leftovers(copy)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace(b"  seed: 0", b"\tseed: 0", 1), "not valid YAML"),
        (lambda text: text.replace(b"  seed: 0", b"  seed: 0\n  seed: 1", 1), 'found duplicate key "seed"'),
        (lambda text: b"# gr\xf6\xdfe\n" + text, "not valid YAML"),
        (lambda text: text[: text.index(b"\nbench:") + 1], "bench: missing"),
        (lambda text: b"", "params.yaml"),
    ],
    ids=["tab", "duplicate", "latin-1", "half", "empty"],
)
def test_garbled_parameters(spoil: Any, message: str, copy: Path) -> None:
    path = copy / "params.yaml"
    path.write_bytes(spoil(path.read_bytes()))
    fails_with(run(copy, "train.py", "digits", "xnor"), message)
    # DVC reads the file first; it must not run a stage then, or where it finds nothing wrong, the first one in vain.
    done = subprocess.run(
        ["dvc", "repro"], cwd=copy, env=environment(copy), check=False, capture_output=True, text=True
    )
    assert done.returncode and ("params.yaml" in done.stdout + done.stderr or "dvc.yaml" in done.stderr)
    assert re.findall(r"Running stage '(\w+)", done.stdout) == (["machine"] if message == "bench: missing" else [])


def test_windows_line_ends_just_work(copy: Path) -> None:
    path = copy / "params.yaml"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert run(copy, "train.py", "digits", "xnor").returncode == 0


@pytest.fixture
def training(copy: Path) -> Iterator["subprocess.Popen[str]"]:
    """A training without end; killed afterwards, however the test went."""
    edit_params(copy, {"digits.xnor.epochs": 2000})
    # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start(copy, "train.py", "digits", "xnor", **heed)
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_leaves_a_training_that_goes_on(training: "subprocess.Popen[str]", copy: Path) -> None:
    deadline = time.monotonic() + 60
    while not list((copy / ".ckpt").glob("*/[!.]*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    training.send_signal(signal.SIGINT)
    output, _ = training.communicate(timeout=60)
    assert training.returncode == 1 and "Traceback" not in output
    assert (
        output.splitlines()[-1] == "interrupted: run the same command again; a training or study goes on where it was"
    )
    again = start(copy, "train.py", "digits", "xnor")
    try:
        assert again.stdout
        first = next(line for line in iter(again.stdout.readline, "") if "epoch" in line)
        assert "going on after epoch" in first
    finally:
        again.kill()
        again.communicate()


def test_the_same_stage_twice_at_a_time_runs_one_after_the_other(training: "subprocess.Popen[str]", copy: Path) -> None:
    assert training.stdout
    assert any("epoch" in line for line in iter(training.stdout.readline, ""))
    second = start(copy, "train.py", "digits", "xnor")
    try:
        assert second.stdout
        waits = f"waiting for another run of this stage, process {training.pid}, to end"
        assert waits in second.stdout.readline()
        assert run(copy, "prepare.py", "digits").returncode == 0, "another stage does not wait"
        training.kill()
        training.wait()
        assert any("epoch" in line for line in iter(second.stdout.readline, ""))
    finally:
        second.kill()
        second.communicate()


def test_what_a_killed_writer_left_is_removed(copy: Path) -> None:
    with subprocess.Popen(["true"]) as killed:
        killed.wait()
    left = copy / f"metrics/data/.digits.{killed.pid}.part.json"
    left.write_text("{")
    assert run(copy, "prepare.py", "digits").returncode == 0
    assert not left.exists()


def test_what_a_living_writer_has_is_left_to_it(copy: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs = copy / f"metrics/data/.digits.{other.pid}.part.json"
        theirs.write_text("{")
        assert run(copy, "prepare.py", "digits").returncode == 0
        assert theirs.exists()
        other.kill()


def test_files_are_as_private_as_the_user_wants(tmp_path: Path) -> None:
    for mask, mode in ((0o077, 0o600), (0o022, 0o644)):
        write = f"import os; os.umask({mask}); from xnornet.files import write_text; write_text('a', '')"
        subprocess.run([sys.executable, "-c", write], check=True, env=environment(ROOT), cwd=tmp_path)
        assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_demo_takes_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.touch()
    (tmp_path / ".dvc").mkdir()
    demo = [sys.executable, ROOT / "scripts/demo.py", tmp_path]
    done = subprocess.run(demo, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "is no demo of ours" in done.stderr
    assert thesis.exists()


@pytest.mark.parametrize(
    ("changes", "script", "message"),
    [
        ({"digits.data.test": 5}, "prepare.py digits", "digits.data.test must be 10 to 1787"),
        ({"digits.data.seed": 2**32}, "prepare.py digits", "digits.data.seed"),
        ({"runtime.seed": 10**15}, "train.py digits xnor", "runtime.seed"),
        ({"bench.threads": [2]}, "sweep.py batch", "threads must include 1"),
        ({"sweep.threads": [6400]}, "sweep.py threads", "name a value up to that"),
        ({"digits.study.width": 8}, "study.py digits", "lenet5 has no width"),
        ({"digits.study.arms": ["paper", "paper"]}, "study.py digits", "is named twice"),
    ],
)
def test_values_that_make_no_sense(changes: dict[str, Any], script: str, message: str, copy: Path) -> None:
    edit_params(copy, changes)
    fails_with(run(copy, *script.split()), message)


def test_few_test_images(copy: Path) -> None:
    edit_params(copy, {"digits.data.test": 50})
    assert run(copy, "prepare.py", "digits").returncode == 0


def test_the_engine_where_nothing_can_be_written(tmp_path: Path) -> None:
    """An installation of somebody else's and no home: compiled in memory. With Numba's switch against AVX, too."""
    code = "import numpy as np; from xnornet.engine import PackedLinear; PackedLinear(np.ones((3, 70), np.float32))"
    installed = Path(shutil.copytree(ROOT / "src/xnornet", tmp_path / "xnornet"))
    folders = [installed, *(path for path in installed.rglob("*") if path.is_dir())]
    variables = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    variables |= {"PYTHONPATH": str(tmp_path), "HOME": "/nowhere", "NUMBA_ENABLE_AVX": "0"}
    for folder in folders:
        folder.chmod(0o555)
    command = [*powerless(), sys.executable, "-c", code + "(np.ones((1, 70), np.float32))"]
    done = subprocess.run(command, check=False, env=variables, cwd=tmp_path, capture_output=True, text=True)
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr


def test_the_engine_with_a_damaged_cache(tmp_path: Path) -> None:
    """What a power cut or a full disk leaves of Numba's files is compiled again, and replaced."""
    command = [sys.executable, "-c", "import xnornet.engine"]
    variables = environment(ROOT) | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(command, env=variables, check=True)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*.nb?")}
    assert {path.suffix for path in whole} == {".nbi", ".nbc"}
    for suffix, size in ((".nbi", 0), (".nbi", 100), (".nbc", 100)):
        for path in tmp_path.rglob(f"*{suffix}"):
            path.write_bytes(path.read_bytes()[:size])
        subprocess.run(command, env=variables, check=True)
        assert all(path.stat().st_size == len(content) for path, content in whole.items())


def test_the_engine_on_a_full_disk(tmp_path: Path) -> None:
    variables = environment(ROOT) | {"NUMBA_CACHE_DIR": str(tmp_path)}
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); import xnornet.engine"
    subprocess.run([sys.executable, "-B", "-c", limited], env=variables, check=True)
    assert not list(tmp_path.rglob("*.nbc"))


def test_the_engine_without_numbas_compiler() -> None:
    command = [sys.executable, "-c", "import xnornet.engine"]
    variables = environment(ROOT) | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, check=False, env=variables, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("made by Numba's compiler: unset NUMBA_DISABLE_JIT")


def test_the_engine_needs_no_compiler(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from xnornet.engine import PackedLinear;"
        "print(PackedLinear(np.ones((3, 70), np.float32))(np.ones((1, 70), np.float32))[0, 0])"
    )
    variables = {"PATH": "/nonexistent", "CC": "/nonexistent/cc", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(ROOT) | variables, check=True, capture_output=True, text=True
    )
    assert float(done.stdout) == 70
