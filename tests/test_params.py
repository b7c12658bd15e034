"""Every parameter that is wrong is named, with what was expected and what is there."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from steelseg.check.known_params import refuse_unknown
from steelseg.core import params
from steelseg.core.errors import BadInput
from steelseg.core.params import Config
from steelseg.data.annotations import PivotConfig
from steelseg.data.cache import Cache
from steelseg.data.splitting import SplitConfig
from steelseg.train.auto import TrainParams

TEXT = (REPOSITORY / "params.yaml").read_text()
PIPELINE = REPOSITORY / "dvc.yaml"


def load(path: Path, text: str | bytes, section: str = "train") -> TrainParams:
    """Write a params.yaml and read the parameters of the training from it."""
    (path / "params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return params.load(TrainParams, section, path / "params.yaml")


def replaced(name: str, value: str, text: str = TEXT) -> str:
    """Return the project's params.yaml with another value of a flat parameter."""
    text, n_found = re.subn(rf"(?m)^{name}: .*$", f"{name}: {value}", text)
    assert n_found == 1
    return text


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1e-05", 1e-5), ("1e-3", 1e-3), ("3e-4", 3e-4), ("0.01", 0.01), ("1", 1.0), ("1E-3", 1e-3)],
)
def test_numbers_are_numbers(value: str, expected: float, tmp_path: Path) -> None:
    """DVC writes `1e-05`, which YAML 1.1 takes for a string."""
    assert load(tmp_path, replaced("lr", value)).lr == expected


BAD_VALUES = [
    ("epochs", "abc", "`epochs`: expected a valid integer or 'auto', but got 'abc'"),
    ("epochs", "0", "`epochs`: expected greater than or equal to 1 or 'auto', but got 0"),
    ("epochs", "2.5", "`epochs`: expected a valid integer or 'auto', .*but got 2.5"),
    ("epochs", "true", "`epochs`: expected a valid integer or 'auto', but got True"),
    ("epochs", "'6'", "`epochs`: expected a valid integer or 'auto', but got '6'"),
    ("epochs", "null", "`epochs`: expected a valid integer or 'auto', but got None"),
    ("epochs", "[6]", r"`epochs`: expected a valid integer or 'auto', but got \[6\]"),
    ("epochs", "9" * 5000, "cannot be read as YAML: Exceeds the limit"),
    ("lr", "-1", "`lr`: expected greater than 0 or 'auto', but got -1"),
    ("lr", "0", "`lr`: expected greater than 0 or 'auto', but got 0"),
    ("lr", ".inf", "`lr`: expected a finite number or 'auto', but got inf"),
    ("lr", ".nan", "`lr`: expected a finite number or 'auto', but got nan"),
    ("lr", "1e-3x", "`lr`: expected a valid number or 'auto', but got '1e-3x'"),
    ("lr", "0,001", "`lr`: expected a valid number or 'auto', but got '0,001'"),
    ("crop", "[1]", r"`crop`: expected at least 2 items .* or 'auto', but got \[1\]"),
    ("crop", "[1, 2, 3]", r"`crop`: expected at most 2 items .* or 'auto', but got \[1, 2, 3\]"),
    ("crop", "[0, 128]", r"`crop\.0`: expected greater than or equal to 1, but got 0"),
    ("crop", "128", "`crop`: expected a valid list or 'auto', but got 128"),
    ("optimizer", "sgdd", "`optimizer`: expected 'adam' or 'adamw', but got 'sgdd'"),
    ("devices", "x", "`devices`: expected a valid integer or 'auto', but got 'x'"),
    ("devices", "0", "`devices`: expected greater than or equal to 1 or 'auto', but got 0"),
    ("loss", "3", "`loss`: expected a valid string or a valid dictionary, but got 3"),
    ("loss", "{bce: x}", r"`loss\.bce`: expected a valid number, but got 'x'"),
    ("fold", "-1", "`fold`: expected greater than or equal to 0, but got -1"),
    ("fold", "1.0", "`fold`: expected a valid integer, but got 1.0"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD_VALUES)
def test_bad_values_are_named(name: str, value: str, expected: str, tmp_path: Path) -> None:
    """The name, what was expected, and what is there instead."""
    with pytest.raises(BadInput, match=rf"params\.yaml: {expected}"):
        load(tmp_path, replaced(name, value))


BAD_FILES = {
    "nothing": ("", "expected a mapping of parameters, but got None"),
    "a list": ("- 1\n", r"expected a mapping of parameters, but got \[1\]"),
    "a word": ("lr", "expected a mapping of parameters, but got 'lr'"),
    "broken": ("lr: 1\nloss: {\n", "line 3: cannot be read as YAML: "),
    "a tab": ("train:\n\tepochs: 1\n", "line 2: cannot be read as YAML: .*cannot start"),
    "a parameter twice": (TEXT + "lr: 1\n", r"line \d+: .* found duplicate key \"lr\""),
    "two documents": (
        TEXT + "---\nlr: 1\n",
        r"line \d+: cannot be read as YAML: but found another",
    ),
    "an unknown tag": ("lr: !!python/object:os.system x", "line 1: cannot be read as YAML"),
    "a date that is none": ("lr: 2020-13-45", "cannot be read as YAML: month must be"),
    "no number for a tag": ("lr: !!int abc", "cannot be read as YAML: invalid literal"),
    "not UTF-8": (b"lr: \xff\n", "cannot be read as YAML: unacceptable character"),
    "a NUL": (b"lr: \0\n", "cannot be read as YAML: unacceptable character"),
    "a section that is none": ("train: 3\n", "`train`: expected a section of parameters, not 3"),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(text: str | bytes, expected: str, tmp_path: Path) -> None:
    """With the line, where YAML knows it, and on one line."""
    with pytest.raises(BadInput, match=rf"params\.yaml: {expected}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The message says where it was looked for; a folder of that name is no file."""
    with pytest.raises(BadInput, match=r"params\.yaml: no such file in /"):
        params.load(TrainParams, "train", tmp_path / "params.yaml")
    with pytest.raises(BadInput, match=r"cannot be read as YAML: .*Is a directory"):
        params.load(TrainParams, "train", tmp_path)


def test_a_mistyped_parameter_is_found_by_the_stage(tmp_path: Path) -> None:
    """The right name is missing, and a wrong one is near it."""
    with pytest.raises(BadInput, match="`epochs` is missing; did you mean `epchs`"):
        load(tmp_path, TEXT.replace("epochs:", "epchs:"))


def test_a_mistyped_parameter_of_a_section_is_found_by_the_stage(tmp_path: Path) -> None:
    """In a section nothing may stand that the stage does not read."""
    with pytest.raises(BadInput) as caught:
        load(tmp_path, TEXT.replace("weight_decay:", "weight_decy:"))
    assert str(caught.value).split("\n")[1:] == [
        "  parameter `weight_decay` is missing; did you mean `weight_decy`?",
        "  unknown parameter `train.weight_decy`; did you mean `weight_decay`?",
    ]


def test_all_faults_are_named_together(tmp_path: Path) -> None:
    """One run, one list."""
    text = replaced("epochs", "x", replaced("lr", "y"))
    with pytest.raises(BadInput, match="2 faults") as caught:
        load(tmp_path, text)
    assert "`epochs`: " in str(caught.value)
    assert "`lr`: " in str(caught.value)


@pytest.mark.parametrize(
    "name", ["2024", "007", "on", "null", "~", "1e3", "1.10", "0x10", "true", "2024-01-01", "1_0"]
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_text_is_what_was_typed(name: str, quoted: bool, tmp_path: Path) -> None:
    """Whatever YAML takes it for: a number, a switch, a date, or nothing."""
    typed = repr(name) if quoted else name
    path = tmp_path / "params.yaml"
    path.write_text(
        f"data_root: {typed} # a comment\ndataset: {typed}\nchannels: auto\n"
        f"pivot_csv:\n  csv: {typed}\n  on_bad_image: stop\n"
    )
    config = params.load(PivotConfig, "pivot_csv", path)
    assert (config.data_root, config.dataset, config.csv) == (name, name, name)


def test_null_is_nothing_where_nothing_may_stand(tmp_path: Path) -> None:
    """And a pattern of digits keeps its zeros."""
    path = tmp_path / "params.yaml"
    for typed, expected in (("null", None), ("", None), ("007", "007")):
        numbers = "  n_folds: 2\n  seed: 1\n  group_by: null\n  test_share: 0\n"
        path.write_text(f"split:\n{numbers}  never_validate: {typed}\n")
        assert params.load(SplitConfig, "split", path).never_validate == expected


def test_a_section_goes_before_the_top_level(tmp_path: Path) -> None:
    """And a fault in it is named with it."""
    assert load(tmp_path, TEXT.replace("\ntrain:\n", "\ntrain:\n  lr: 0.5\n")).lr == 0.5
    with pytest.raises(
        BadInput, match=r"`train\.lr`: expected a valid number or 'auto', but got 'x'"
    ):
        load(tmp_path, TEXT.replace("\ntrain:\n", "\ntrain:\n  lr: x\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epchs: 6\n", "unknown parameter `epchs`; did you mean `epochs`?"),
        ("pivotcsv: {}\n", "unknown parameter `pivotcsv`; did you mean `pivot_csv`?"),
        ("xyzzy: 1\n", "unknown parameter `xyzzy`"),
        ("3: 1\n", "unknown parameter `3`"),
        ("? [a, b]\n: 1\n", "unknown parameter `('a', 'b')`"),
    ],
)
def test_parameters_that_no_stage_reads_are_refused(
    text: str, expected: str, tmp_path: Path
) -> None:
    """They would change nothing, in silence."""
    (tmp_path / "params.yaml").write_text(TEXT + text)
    with pytest.raises(BadInput) as caught:
        refuse_unknown(tmp_path / "params.yaml", PIPELINE)
    assert str(caught.value) == f"{tmp_path / 'params.yaml'}: {expected}"


def test_keys_that_are_no_names_do_not_stop_the_suggestions(tmp_path: Path) -> None:
    """YAML keys may be anything."""
    text = TEXT.replace("epochs:", "epchs:") + "3: 1\n? [a]\n: 1\nnull: 1\n"
    with pytest.raises(BadInput, match="`epochs` is missing; did you mean `epchs`"):
        load(tmp_path, text)


def test_a_fold_that_is_not_there_is_refused(tiny_cache: Cache) -> None:
    """Only the fold table knows how many there are."""
    from steelseg.train.fold_data import FoldData  # Lightning takes seconds to import

    config = params.load(TrainParams, "train", REPOSITORY / "params.yaml")
    folds = np.arange(len(tiny_cache)) % 4
    with pytest.raises(BadInput, match="`fold`: expected 0 to 3, but got 99"):
        FoldData(tiny_cache, folds, config.model_copy(update={"fold": 99}))


class Example(Config):
    """Every kind of type that the pipeline's parameters have."""

    number: Annotated[float, Field(gt=0)]
    count: Annotated[int, Field(ge=1)] | Literal["auto"]
    pair: Annotated[list[int], Field(min_length=2, max_length=2)] | None
    weights: str | dict[str, float]
    steps: list[dict[str, dict[str, Any] | None]]


TEXTS = st.text("ax19.-e:&*[{'\"\n #\u00e9", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Example.model_fields, "numbr", "own"]), VALUES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_read_or_explained(tmp_path: Path, document: dict[str, Any]) -> None:
    """What YAML can say is taken as it is or refused by name, never in another way."""
    YAML().dump(document, tmp_path / "params.yaml")
    try:
        config = params.load(Example, "own", tmp_path / "params.yaml")
    except BadInput:
        return
    assert config.model_dump().items() <= {**document, **(document.get("own") or {})}.items()
