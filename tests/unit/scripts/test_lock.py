"""The locks that `scripts/lock` writes: what each has, and that the code of a group imports nothing else."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
RUN = ("requirements.lock", "requirements-libp2p.lock")
BENCH = (*RUN, "requirements-bench.lock")
DEV = (*BENCH, "requirements-dev.lock")

OURS = {"node", "protocols", "discovery", "netsim", "benchmarks", "attacks"}
TYPES_ONLY = {"_typeshed"}
"""Modules that exist for type checkers alone; nothing imports them at run time."""
# What libp2p asks for and nothing here imports; see pyproject.toml.
NOT_IMPORTED = {"grpcio", "mypy-protobuf", "rpcudp", "types-requests"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    text = "".join(line for line in _text(name).splitlines(keepends=True) if not line.startswith("#"))
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_a_place(name: str) -> None:
    assert not re.search(r"://|--index|--find-links| @ ", _text(name))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_says_what_it_is_for(name: str) -> None:
    assert _text(name).startswith("# What ") or _text(name).startswith("# The libp2p ")
    assert "written by scripts/lock" in _text(name).split("\n", 1)[0]


def test_no_package_is_in_two_locks_of_a_group() -> None:
    names = [name for lock in DEV for name in _packages(lock)]
    assert len(set(names)) == len(names)


def test_pip_can_install_the_lock_of_a_node_without_a_compiler() -> None:
    # libp2p pins a fastecdsa that comes as C source: pip refuses the two together, or compiles.
    pinned = _packages("requirements.lock")
    assert "libp2p" not in pinned
    assert int(pinned["fastecdsa"].split(".")[0]) >= 4


def test_the_libp2p_is_the_one_we_know() -> None:
    assert _packages("requirements-libp2p.lock") == {"libp2p": "0.8.1"}


def test_a_node_needs_no_tools() -> None:
    tools = {"mypy", "ruff", "pytest", "hypothesis", "coverage", "matplotlib", "numpy", "pre-commit", "import-linter"}
    assert not tools & set(_packages("requirements.lock"))
    assert "matplotlib" in _packages("requirements-bench.lock")
    assert not tools & set(_packages("requirements-bench.lock")) - {"matplotlib", "numpy"}


def test_we_ask_for_what_libp2p_asks_for() -> None:
    # Our list stands in for libp2p's own, since our wheel brings its code: a new release must not add to it unseen.
    lists = requires("libp2p")
    assert lists is not None
    pinned = _packages("requirements.lock")
    asked = [Requirement(line) for line in lists]
    here = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert {canonicalize_name(each.name) for each in here} - set(pinned) == NOT_IMPORTED
    for each in here:
        if each.name not in {"fastecdsa", *NOT_IMPORTED}:
            assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each


@pytest.mark.parametrize(
    ("folders", "locks"),
    [
        (["node", "protocols", "discovery", "netsim", "scripts/attacks"], RUN),
        (["scripts/benchmarks"], BENCH),
        (["tests", "hatch_build.py"], DEV),
    ],
    ids=["run", "bench", "dev"],
)
def test_each_group_has_what_its_code_imports(folders: list[str], locks: tuple[str, ...]) -> None:
    locked = {name for lock in locks for name in _packages(lock)}
    ours = OURS | {"tests", "hatch_build"} if locks == DEV else OURS
    distributions = _distributions()
    for folder in folders:
        for path in _sources(ROOT / folder):
            for name in _imported(path) - ours - sys.stdlib_module_names - TYPES_ONLY:
                found = {canonicalize_name(each) for each in distributions.get(name, [])}
                assert found & locked, f"{path} imports {name}, which is in none of {', '.join(locks)}"


def test_a_node_starts_without_the_packages_of_the_other_groups() -> None:
    others = {name for lock in DEV[len(RUN) :] for name in _packages(lock)}
    absent = {name for name, found in _distributions().items() if {canonicalize_name(f) for f in found} <= others}
    assert {"mypy", "pytest", "matplotlib", "numpy"} <= absent
    modules = "node.app", "node.cli", "node.process.run", "node.swarm.libp2p.host", "netsim.commands.sim", "netsim.demo"
    program = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", program], cwd="/", check=True, timeout=60)


@cache
def _distributions() -> Mapping[str, list[str]]:
    """The distributions that each top-level name is from."""
    return packages_distributions()


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _packages(lock: str) -> dict[str, str]:
    """The version of each package; where a lock has two, for two versions of Python, the last."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ]+) ", _text(lock), re.MULTILINE))


def _sources(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def _imported(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _import_names(ast.parse(path.read_text(encoding="utf-8")))}


def _import_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
