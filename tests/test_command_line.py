"""The command line finds the module of every command."""

import pytest

from steelseg.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture) -> None:
    """`--help` describes it, without reading any file."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: python -m steelseg {name}" in capsys.readouterr().out
