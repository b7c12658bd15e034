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
