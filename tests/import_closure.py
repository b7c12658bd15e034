"""Which files of the project a script imports, directly and indirectly, read from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"


def closure(script: Path) -> set[str]:
    """Return the script and all modules of the project that it imports, as paths from the root.

    Imports inside functions count too. A package's `__init__.py` is run by every import of one of
    its modules.
    """
    found: set[Path] = set()
    queue = [script]
    while queue:
        file = queue.pop()
        if file not in found:
            found.add(file)
            queue += _imported(file)
    return {str(file.relative_to(ROOT)) for file in found}


def _imported(file: Path) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = [SRC / Path(*name.split(".")) for name in sorted(names)]
    return [
        path
        for c in candidates
        for path in (c.with_suffix(".py"), c / "__init__.py")
        if path.is_file()
    ]
