"""dvc.yaml, params.yaml and the code say the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from import_closure import ROOT, closure
from ruamel.yaml import YAML

from steelseg.check.known_params import declared

SEVEN = [
    *("pivot_csv", "stratified_split", "cache_masks", "train"),
    *("tune_threshold", "predict", "submit"),
]


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / name)
    return document


STAGES = read("dvc.yaml")["stages"]


def names(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        yield entry if isinstance(entry, str) else next(iter(entry))


def outputs(stage: dict[str, Any]) -> set[str]:
    return {n for kind in ("outs", "metrics", "plots") for n in names(stage.get(kind, []))}


def code_deps(name: str) -> list[str]:
    return [dep for dep in STAGES[name]["deps"] if dep.startswith(("src/", "stages/"))]


def covers(dep: str, file: str) -> bool:
    return file == dep or Path(file).is_relative_to(dep)


@pytest.mark.parametrize("name", STAGES)
def test_code_deps_cover_the_import_closure(name: str) -> None:
    """DVC does not follow imports, so each stage lists all that its script imports, and no more."""
    used, listed = closure(ROOT / "stages" / f"{name}.py"), code_deps(name)
    assert not [file for file in sorted(used) if not any(covers(dep, file) for dep in listed)]
    assert not [dep for dep in listed if not any(covers(dep, file) for file in used)]


@pytest.mark.parametrize("name", ["train", "tune_threshold", "predict"])
def test_long_stages_use_all_of_the_packages_that_they_list(name: str) -> None:
    """What takes hours runs again only where something has changed that it uses."""
    used = closure(ROOT / "stages" / f"{name}.py")
    for dep in code_deps(name):
        if (ROOT / dep).is_dir():
            modules = {str(p.relative_to(ROOT)) for p in (ROOT / dep).rglob("*.py")}
            assert {m for m in modules if Path(m).name != "__init__.py"} <= used


def test_packages_run_no_code_when_imported() -> None:
    """No stage lists an `__init__.py`, so none may decide anything."""
    for path in (ROOT / "src/steelseg").glob("*/__init__.py"):
        assert len(ast.parse(path.read_text()).body) == 1, path  # its docstring


def test_source_paths_are_few() -> None:
    """They are kept by hand."""
    assert sum(len(code_deps(name)) for name in STAGES) <= 70


@pytest.mark.parametrize("name", STAGES)
def test_params_listed_are_params_read(name: str) -> None:
    """A param that is read but not listed would be ignored; one listed but not read, run again."""
    source = (ROOT / "stages" / f"{name}.py").read_text()
    read_by_stage: set[str] = set()
    for config, section in re.findall(r"load\((\w+)(?:, \"(\w+)\")?\)", source):
        params = read("params.yaml")
        flat = config_fields(source, config) - set(params.get(section, {}))  # a section goes first
        read_by_stage |= (flat & set(params)) | ({section} if section else set())
    assert set(STAGES[name].get("params", [])) == read_by_stage


def config_fields(source: str, config: str) -> set[str]:
    module = re.search(rf"from (steelseg[\w.]+) import .*\b{config}\b", source)
    assert module, f"where does {config} come from?"
    imported = __import__(module[1], fromlist=[config])
    return set(getattr(imported, config).model_fields)


def test_every_param_is_declared() -> None:
    """params.yaml holds nothing that no stage reads."""
    assert set(read("params.yaml")) == declared(read("dvc.yaml"))


def test_the_seven_stages_stand_in_their_order() -> None:
    """The names and the order of the stages are a contract."""
    assert [name for name in STAGES if name in SEVEN] == SEVEN


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_has_done_once_is_found_again(name: str) -> None:
    """DVC's run cache passes over stages with outputs that it does not cache, other than these."""
    assert all(isinstance(out, str) for out in STAGES[name].get("outs", []))
    for kind in ("metrics", "plots"):
        for entry in STAGES[name].get(kind, []):
            assert next(iter(entry.values()))["cache"] is False  # small, and kept in git


def test_no_stage_writes_what_another_writes() -> None:
    """Outputs are disjoint, and scripts and stages have the same names."""
    everything = [out for stage in STAGES.values() for out in outputs(stage)]
    assert len(everything) == len(set(everything))
    assert {p.stem for p in (ROOT / "stages").glob("*.py")} == set(STAGES)


@pytest.mark.parametrize("name", [n for n in STAGES if n not in {"train", "export_onnx", "report"}])
def test_light_stages_import_neither_torch_nor_mlflow(name: str) -> None:
    """Seconds of imports are paid only where the library is needed (by a GPU runtime, at most)."""
    heavy = {"torch", "lightning", "segmentation_models_pytorch", "mlflow", "albumentations"}
    for file in closure(ROOT / "stages" / f"{name}.py"):
        for line in (ROOT / file).read_text().splitlines():
            imported = re.match(r"(?:import|from) (\w+)", line)
            # imported by a function for the torch runtime, and by MLflow
            elsewhere = Path(file).stem in {"network", "pretrained", "served"}
            assert not imported or imported[1] not in heavy or elsewhere, f"{file}: {line}"
