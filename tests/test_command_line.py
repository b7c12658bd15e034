"""The command line finds the module of every command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steelseg.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture) -> None:
    """`--help` describes it, without reading any file."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: python -m steelseg {name}" in capsys.readouterr().out


def test_dvc_is_found_beside_the_interpreter(tmp_path: Path) -> None:
    """With a virtual environment that is not on PATH; it answers that there is no repository."""
    (tmp_path / "params.yaml").write_text(
        "seed: 1\nstratified_split: {n_folds: 2, seed: 1, never_validate: null, group_by: null, "
        "test_share: 0}\n"
    )
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    result = subprocess.run(
        [sys.executable, "-m", "steelseg", "kfold"],
        cwd=tmp_path,
        env=os.environ | {"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be queued: ERROR: you are not inside of a DVC repository" in result.stderr
    assert "Traceback" not in result.stderr
