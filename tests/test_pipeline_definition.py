"""dvc.yaml, params.yaml and the code say the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from import_closure import ROOT, closure
from ruamel.yaml import YAML

from steelseg.known_params import declared

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


@pytest.mark.parametrize("name", STAGES)
def test_code_deps_are_the_import_closure(name: str) -> None:
    """DVC does not follow imports, so each stage lists exactly what its script imports."""
    listed = [dep for dep in STAGES[name]["deps"] if dep.endswith(".py")]
    assert listed == sorted(closure(ROOT / "stages" / f"{name}.py"))


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
    module = re.search(rf"from (steelseg\.\w+) import .*\b{config}\b", source)
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
            elsewhere = Path(file).stem in {"models", "served_model"}
            assert not imported or imported[1] not in heavy or elsewhere, f"{file}: {line}"
