"""The shape of the source: sizes, names, and where a test is (see `CONTRIBUTING.md`)."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PRODUCT = ("node", "protocols", "discovery", "netsim", "scripts/attacks", "scripts/benchmarks")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path: Path, node: ast.AST | None = None) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def definitions(path: Path) -> tuple[Function | ast.ClassDef, ...]:
    return tuple(node for node in ast.walk(tree(path)) if isinstance(node, Function | ast.ClassDef))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in definitions(path) if isinstance(node, Function))


def lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: Function) -> int:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


# -- sizes --------------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    long = [place(path) for path in sources(*PRODUCT, "tests") if len(path.read_bytes().splitlines()) > FILE_LINES_MAX]
    assert long == [], f"more than {FILE_LINES_MAX} lines: split them by subject"


def test_no_function_is_too_long() -> None:
    found = [(path, node) for path in sources(*PRODUCT, "tests") for node in functions(path)]
    long = [f"{place(path, node)}: {node.name}" for path, node in found if lines(node) > FUNCTION_LINES_MAX]
    assert long == [], f"more than {FUNCTION_LINES_MAX} lines: name a part of each, and call it"


def test_a_function_with_many_parameters_says_why() -> None:
    silent = []
    for path in sources(*PRODUCT):
        text = path.read_text(encoding="utf-8").splitlines()
        for node in functions(path):
            body = "\n".join(text[node.lineno - 1 : node.end_lineno])
            if parameters(node) > PARAMETERS_MAX and "# More than ten parameters, because" not in body:
                silent.append(f"{place(path, node)}: {node.name}")
    assert silent == [], "join parameters that belong together, or write '# More than ten parameters, because ...'"


# -- names --------------------------------------------------------------------------------------------------------


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources(*PRODUCT):
        for node in definitions(path):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(place(path, node))
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert shared == {}, "a reader who searches for the name finds the wrong one: rename one of them"


def test_no_name_says_told_instead_of_what_it_holds() -> None:
    wrong = [
        place(path, node)
        for path in sources(*PRODUCT)
        if re.search(r"\btold\b", path.read_text(encoding="utf-8"))
        for node in ast.walk(tree(path))
        if "told" in [getattr(node, kind, "") for kind in ("id", "attr", "arg", "name")]
    ]
    assert wrong == []


# -- documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [*PRODUCT, "tests"])
def test_a_module_says_in_its_first_line_what_it_is(folder: str) -> None:
    silent = []
    for path in sources(folder):
        first = (ast.get_docstring(tree(path)) or "").split("\n", 1)[0]
        is_whole = first.endswith((".", "?", "`", ")"))
        if folder != "tests" and not is_whole:
            silent.append(place(path))
        if folder == "tests" and path.name.startswith("test_") and not first:
            silent.append(place(path))
    assert silent == [], "the first line of a module is a sentence"


# -- tests --------------------------------------------------------------------------------------------------------

ABOUT_MANY = {"docs", "repository", "scripts"}
"""Folders of `tests/unit` whose tests are about no module."""


def test_a_unit_test_is_where_its_module_is() -> None:
    """In the folder that mirrors that of its module; a test about several modules is in the folder of their package."""
    unit = ROOT / "tests/unit"
    folders = {path.parent for path in unit.rglob("test_*.py")}
    names = {folder.relative_to(unit) for folder in folders if folder != unit}
    lost = [str(name) for name in names if name.parts[0] not in ABOUT_MANY and not (ROOT / name).is_dir()]
    assert lost == [], "their package has moved, or is gone"
