"""Raw data of one's own, added as the README says, goes wherever DVC takes the project."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import clone, run
from conftest import REPOSITORY, draw_dataset
from dvc.exceptions import DvcException
from dvc.repo import Repo

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # among DVC's own libraries

NAMES = ["mine", "2024", "coil 7 [new]", "Blech-ü", "plant"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """A repository with nothing but what git and DVC are told to ignore, and a remote."""
    folder = tmp_path / "project"
    for name in (".gitignore", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    run(folder, "git", "init", "-q")
    monkeypatch.chdir(folder)
    with Repo(str(folder)) as repo:
        with repo.config.edit("repo") as config:
            config["remote"] = {"store": {"url": str(tmp_path / "store")}}
            config["core"]["remote"] = "store"
        yield repo


def write(folder: Path, text: str = "x") -> None:
    (folder / "train_images").mkdir(parents=True)
    (folder / "train_images" / "a.png").write_text(text)
    (folder / "train.csv").write_text(text)


def commit(*paths: str) -> None:
    run(Path(), "git", "add", *paths)
    run(Path(), "git", "-c", "user.name=x", "-c", "user.email=x@example.invalid", "commit", "-qmx")


@pytest.mark.parametrize("folder", [*(f"data/raw/{name}" for name in NAMES), "models/members"])
def test_what_was_added_is_pushed_fetched_and_kept(
    project: Repo, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By commands that name no file: push, pull in a fresh clone, checkout, and gc."""
    write(Path(folder))
    project.add(folder)
    commit(".gitignore", ".dvcignore", ".dvc/config", f"{folder}.dvc")
    assert project.push() > 0
    run(tmp_path, "git", "clone", "-q", "project", "other")
    with monkeypatch.context() as context:
        context.chdir(tmp_path / "other")
        with Repo(".") as other:
            other.pull()
            assert (Path(folder) / "train_images/a.png").read_text() == "x"
    project.gc(workspace=True, force=True)
    shutil.rmtree(folder)
    project.checkout()
    assert (Path(folder) / "train.csv").read_text() == "x"


def test_git_sees_what_was_added_and_nothing_else(project: Repo) -> None:
    """Raw data, caches and models stay out of git, the files that stand for them do not."""
    for name in ("data/raw/mine", "data/raw/other", "data/cache", "models/members/0123"):
        write(Path(name))
    project.add("data/raw/mine")
    project.add("models/members")
    untracked = run(Path(), "git", "status", "--porcelain", "-uall").split()[1::2]
    assert [name for name in untracked if not name.startswith(".")] == [
        "data/raw/mine.dvc",
        "models/members.dvc",
    ]


@pytest.mark.parametrize("name", ["data/raw/plant/mine", "data/mine", "data/raw/mine/train_images"])
def test_a_place_that_dvc_would_not_look_at_is_refused(project: Repo, name: str) -> None:
    """Not passed over in silence; the folder in data/raw that it stands in can be added."""
    write(Path(name))
    with pytest.raises(DvcException, match="git-ignored"):
        project.add(name)


def test_compiled_code_changes_no_folder_that_a_stage_depends_on(project: Repo) -> None:
    """Nor does what a Mac leaves behind."""
    assert project.dvcignore.is_ignored_dir("src/steelseg/core/__pycache__")
    assert project.dvcignore.is_ignored_file("data/raw/mine/.DS_Store")
    assert not project.dvcignore.is_ignored_file("src/steelseg/core/errors.py")


def cached(folder: Path, *revision: str) -> str:
    """Return the MD5 of the folder of images and masks that dvc.lock holds."""
    lock = run(folder, "git", "show", *revision) if revision else (folder / "dvc.lock").read_text()
    return lock.split("path: data/cache\n")[1].split("md5: ")[1].split()[0]


@pytest.mark.pipeline
def test_experiments_and_clones_find_raw_data_of_ones_own(tmp_path: Path) -> None:
    """In a temporary folder, from the queue, and in a clone: what is cached is the same.

    The stages up to there are all that is run, since they read every path of the raw data. The
    data set has a name that YAML takes for a number.
    """
    first = clone(tmp_path / "first")
    draw_dataset(first / "data/raw/2024", n_images=8, size_hw=(32, 48))
    run(first, "dvc", "add", "-q", "data/raw/2024")
    run(first, "dvc", "remote", "add", "-q", "--default", "store", str(tmp_path / "store"))
    run(first, "git", "add", "-A")
    run(first, "git", "commit", "-qm", "my data")
    experiment = ["dvc", "exp", "run", "-S", "dataset=2024"]
    run(first, *experiment, "--temp", "-n", "temporary", "cache_masks")
    run(first, *experiment, "--queue", "-n", "queued", "cache_masks")
    run(first, "dvc", "exp", "run", "--run-all")
    run(first, *experiment, "cache_masks")  # here, where dvc.lock is kept for the clone
    run(first, "git", "add", "-A")
    run(first, "git", "commit", "-qm", "my results")
    run(first, "dvc", "push", "-q")
    run(tmp_path, "git", "clone", "-q", "first", "second")
    run(tmp_path / "second", "dvc", "pull", "-q", "--allow-missing")
    run(tmp_path / "second", "dvc", "repro", "cache_masks")
    names = run(first, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    for experiment_name in ("temporary", "queued"):
        revision = next(name for name in names if name.endswith(f"/{experiment_name}"))
        assert cached(first, f"{revision}:dvc.lock") == cached(first)
    manifests = {
        (tmp_path / n / "data/cache/manifest.json").read_text() for n in ("first", "second")
    }
    assert len(manifests) == 1
