"""A stage script ends with a message, and not long after whoever started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY

STAGE = """
import time
from steelseg.tracking.stage import run

def main():
    print("started", flush=True)
    time.sleep(60)

run(main)
"""


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A stage that a program named dvc runs through a shell, as DVC does."""
    (tmp_path / "stage.py").write_text(STAGE)
    dvc = tmp_path / "dvc"
    dvc.write_text(
        "import subprocess\n"
        f"subprocess.run('true; {sys.executable} {tmp_path}/stage.py; true', shell=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(dvc)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DVC_STAGE": "train"},
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "started\n"
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_ends_soon_after_dvc_alone_was_killed(
    orphan: subprocess.Popen, number: signal.Signals
) -> None:
    """DVC takes no stage with it: the training would go on for hours, seen by nobody."""
    stages = psutil.Process(orphan.pid).children(recursive=True)
    assert any("stage.py" in word for stage in stages for word in stage.cmdline())
    orphan.send_signal(number)
    orphan.wait(10)
    _, alive = psutil.wait_procs(stages, timeout=15)
    assert alive == []


def test_sigterm_closes_what_a_stage_holds(tmp_path: Path) -> None:
    """It ends as by an interrupt from the keyboard: `finally` and `with` have their say."""
    code = (
        "import time\nfrom steelseg.tracking.stage import run\n"
        "def main():\n    try:\n        print('started', flush=True); time.sleep(60)\n"
        "    finally:\n        print('closed', flush=True)\nrun(main)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    begin = time.monotonic()
    process.terminate()
    assert process.communicate(timeout=20)[0] == "closed\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 15


def fail(folder: Path, statement: str) -> str:
    """Run a stage that does one thing; return what it prints as an error."""
    code = "import errno, os\nfrom steelseg.tracking.stage import run\n"
    code += f"def main():\n    {statement}\nrun(main)"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    return result.stderr


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("open('gone.csv')", "error: gone.csv: No such file or directory\n"),
        ("os.mkdir('file/folder')", "error: file/folder: Not a directory\n"),
        ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", "error: No space left on dev"),
        ("raise PermissionError(errno.EACCES, 'Permission denied', 'x')", "error: x: Permission"),
    ],
)
def test_what_the_system_refuses_is_one_line(statement: str, expected: str, tmp_path: Path) -> None:
    """The file or folder and the reason; a person can mend that and needs no traceback."""
    (tmp_path / "file").write_text("")
    printed = fail(tmp_path, statement)
    assert printed.startswith(expected)
    assert printed.count("\n") == 1


@pytest.mark.parametrize("error", ["KeyError('x')", "OSError('a library says so')"])
def test_what_is_our_own_fault_keeps_its_traceback(error: str, tmp_path: Path) -> None:
    """And so does what a library calls an OSError."""
    assert "Traceback" in fail(tmp_path, f"raise {error}")
