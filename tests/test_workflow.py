"""The workflow for GitHub Actions is legal, asks for little, and calls commands that exist."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
WORKFLOW: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / ".github/workflows/checks.yml")
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_its_make_targets_exist() -> None:
    """The checks run what people run."""
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    called = re.findall(r"make ([a-z-]+)", "\n".join(step.get("run", "") for step in STEPS))
    assert {"setup-extras", "check", "test"} <= set(called) <= targets


def test_forks_get_no_secrets() -> None:
    """No trigger that lends a fork the repository's rights, and none by default but reading."""
    assert set(WORKFLOW["on"]) == {"push", "pull_request"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    text = (ROOT / ".github/workflows/checks.yml").read_text()
    assert "secrets." not in text
    rights = {name: job.get("permissions") for name, job in WORKFLOW["jobs"].items()}
    assert rights["checks"] is None
    assert rights["compare"] == {"contents": "read", "pull-requests": "write"}


def test_actions_are_pinned_to_commits() -> None:
    """A tag can be moved to other code, a commit cannot."""
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name) for name in used)


def test_nothing_that_others_write_is_put_into_a_script() -> None:
    """Titles and branch names of a pull request reach scripts as variables, if at all."""
    assert not any("${{" in step.get("run", "") for step in STEPS)
