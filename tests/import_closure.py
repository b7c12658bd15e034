"""Which files of the project a script imports, directly and indirectly, read from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PACKAGE = SRC / "steelseg"
# What only watches a stage cannot change its outputs: MLflow runs and their tags, the terminal and
# the watch over orphans (`tracking`), and the copy of the finished model in the registry.
OBSERVERS = ("tracking", "registry")


def closure(script: Path) -> set[str]:
    """Return the script and all modules that can change what it writes, as paths from the root.

    Imports inside functions count too. Observers are passed over, with all that only they import.
    So is `__init__.py`, which holds no code but the lazy public names of the package (a test).
    """
    found: set[Path] = set()
    queue = [script]
    while queue:
        file = queue.pop()
        if file not in found and not is_observer(file):
            found.add(file)
            queue += _imported(file)
    return {str(file.relative_to(ROOT)) for file in found}


def is_observer(file: Path) -> bool:
    """Whether a module stands in a package that only observes."""
    return any(file.is_relative_to(PACKAGE / name) for name in OBSERVERS)


def _imported(file: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = [SRC / Path(*name.split(".")).with_suffix(".py") for name in sorted(names)]
    return [path for path in candidates if path.is_file()]
