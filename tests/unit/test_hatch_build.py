"""The wheel and the sdist that this checkout builds: what is in them, and that an installed wheel works.

Nothing is downloaded: the wheel of libp2p that goes in is made anew from the libp2p that is installed here, and an
installed wheel finds its other requirements in this environment.
"""

import ast
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import libp2p
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hatch_build

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"node", "protocols", "discovery", "netsim"}
LIBP2P = f"libp2p-{libp2p.__version__}"
METADATA_OF_LIBP2P = f"bzzz-0.1.0.data/purelib/{LIBP2P}.dist-info"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, with a wheel of libp2p in `vendor/` and the lock that names it."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "vendor").mkdir()
    wheel = folder / "vendor" / f"{LIBP2P}-py3-none-any.whl"
    site = Path(libp2p.__file__).parents[1]
    with zipfile.ZipFile(wheel, "w") as archive:
        for part in ("libp2p", f"{LIBP2P}.dist-info"):
            for path in sorted((site / part).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    archive.write(path, str(path.relative_to(site)))
    _lock(folder, hashlib.sha256(wheel.read_bytes()).hexdigest())
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return _build(source, "wheel", source / "dist")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read("bzzz-0.1.0.dist-info/METADATA"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with the wheel: its requirements come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    uv = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    command = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", folder / "bin" / "python", wheel]
    subprocess.run(command, check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(f"{Path(libp2p.__file__).parents[1]}\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_asks_for_nothing_that_needs_a_compiler(metadata: Message) -> None:
    asked = {each.name: each for each in map(Requirement, metadata.get_all("Requires-Dist", []))}
    assert "libp2p" not in asked
    assert not asked["fastecdsa"].specifier.contains("2.3.2")


def test_everything_that_the_wheel_asks_for_is_locked(metadata: Message) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for each in map(Requirement, metadata.get_all("Requires-Dist", [])):
        assert f"\n{canonicalize_name(each.name)}==" in lock


def test_the_wheel_has_our_packages_and_libp2p_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert top == PACKAGES | {"libp2p", "bzzz-0.1.0.dist-info", "bzzz-0.1.0.data"}


def test_the_wheel_has_no_code_that_only_tests_use(wheel: Path) -> None:
    of_a_tool = re.compile(r"^\s*(import|from) (_?pytest|pytest_trio|hypothesis|unittest|tests)\b", re.MULTILINE)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and name.partition("/")[0] in PACKAGES:
                assert not of_a_tool.search(archive.read(name).decode()), name
                assert not {"tests", "mutants"} & set(Path(name).with_suffix("").parts), name


def test_every_module_of_the_wheel_is_used_by_a_command_or_by_the_demonstration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".py") and n.partition("/")[0] in PACKAGES]
        texts = {name[:-3].replace("/", ".").removesuffix(".__init__"): archive.read(name).decode() for name in names}
    used: set[str] = set()
    ahead = ["node.cli", "netsim.demo.__main__"]
    while ahead:
        module = ahead.pop()
        if module in texts and module not in used:
            used.add(module)
            ahead += [module.rpartition(".")[0], *_named_modules(texts[module])]
    assert sorted(texts.keys() - used) == [], "exclude them from the wheel in pyproject.toml, or delete them"


def _named_modules(text: str) -> Iterator[str]:
    """What a module imports, at its top or later, and what it names in texts, as `node/cli.py` does."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                yield from (each.name for each in node.names)
            case ast.ImportFrom(module=str(module)):
                yield from (module, *(f"{module}.{each.name}" for each in node.names))
            case ast.Constant(value=str(value)):
                yield value


def test_the_wheel_has_all_of_libp2p_with_its_licences(wheel: Path) -> None:
    folder = Path(libp2p.__file__).parent
    sources = {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = archive.read(f"{METADATA_OF_LIBP2P}/METADATA").decode()
    assert sources <= names
    assert {f"{METADATA_OF_LIBP2P}/licenses/LICENSE-{one}" for one in ("APACHE", "MIT")} <= names
    head, _, description = about.partition("\n\n")
    assert f"Version: {libp2p.__version__}" in head.splitlines()
    assert "Requires-Dist" not in head  # or a check of the environment would miss the fastecdsa that libp2p pins
    assert (distribution("libp2p").read_text("METADATA") or "").endswith(description)


def test_the_sdist_brings_the_wheel_of_libp2p(source: Path) -> None:
    with tarfile.open(_build(source, "sdist", source / "dist")) as archive:
        names = set(archive.getnames())
    assert f"bzzz-0.1.0/vendor/{LIBP2P}-py3-none-any.whl" in names
    assert {f"bzzz-0.1.0/{name}" for name in ("hatch_build.py", hatch_build.LOCK, "config/hybrid.yaml")} <= names


def test_an_installed_wheel_says_its_version(installed: Path) -> None:
    assert _output(installed / "bzzz", "--version") == "bzzz 0.1.0\n"


def test_an_installed_wheel_has_the_profiles(installed: Path) -> None:
    shown = _output(installed / "bzzz", "config", "show", "--profile", "staging")
    assert "profile staging: dht.backend" in shown


def test_an_installed_wheel_runs_on_its_own_libp2p(installed: Path) -> None:
    program = "import node.swarm.libp2p.host, libp2p; print(node.__file__); print(libp2p.__file__, libp2p.__version__)"
    ours, theirs = _output(installed / "python", "-c", program).splitlines()
    assert Path(ours).is_relative_to(installed.parent)
    assert Path(theirs.split()[0]).is_relative_to(installed.parent)
    assert theirs.split()[1] == libp2p.__version__


def test_a_checkout_makes_its_packages_importable_and_nothing_else() -> None:
    program = """
import importlib.util
for name in {}:
    found = importlib.util.find_spec(name)
    print(name, found.origin if found else found)
"""
    names = ["node", "tests", "scripts", "benchmarks", "attacks", "config", "hatch_build"]
    found = dict(line.split(" ", 1) for line in _output(sys.executable, "-c", program.format(names)).splitlines())
    assert found.pop("node") == str(ROOT / "node" / "__init__.py")
    assert set(found.values()) == {"None"}


def test_an_editable_wheel_built_without_hooks_has_no_libp2p(source: Path) -> None:
    # bootstrap builds like this: the locked libp2p is there already.
    built = _build(source, "wheel:editable", source / "editable", HATCH_BUILD_NO_HOOKS="true")
    with zipfile.ZipFile(built) as archive:
        assert not [name for name in archive.namelist() if "libp2p" in name]


def test_an_editable_wheel_brings_libp2p(source: Path) -> None:
    built = _build(source, "wheel:editable", source / "editable-whole")
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert {"libp2p/__init__.py", f"{METADATA_OF_LIBP2P}/METADATA"} <= set(names)
    assert not [name for name in names if name.startswith("node/")]


def test_a_libp2p_with_another_hash_is_refused(tmp_path: Path) -> None:
    (kept := tmp_path / f"{LIBP2P}-py3-none-any.whl").write_bytes(b"another")
    _lock(tmp_path, hashlib.sha256(b"the one").hexdigest())
    with pytest.raises(ValueError, match=r"is not the file that requirements-libp2p\.lock names"):
        hatch_build.locked_wheel(kept, tmp_path / hatch_build.LOCK)


def test_pip_and_uv_get_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_CERT", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mirror")
    monkeypatch.setenv("SSL_CERT_FILE", "authority.pem")
    assert hatch_build.settings_for_pip()["PIP_INDEX_URL"] == "mirror"
    assert hatch_build.settings_for_pip()["PIP_CERT"] == "authority.pem"
    monkeypatch.setenv("PIP_INDEX_URL", "its own")
    assert hatch_build.settings_for_pip()["PIP_INDEX_URL"] == "its own"


def _lock(folder: Path, digest: str) -> None:
    text = f"libp2p=={libp2p.__version__} \\\n    --hash=sha256:{digest}\n"
    (folder / hatch_build.LOCK).write_text(text, encoding="utf-8")


def _build(source: Path, target: str, directory: Path, **environment: str) -> Path:
    """What hatchling builds from `source`: the one file of `target`'s kind in `directory`."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=source, env={**os.environ, **environment}, check=True, timeout=60)
    (built,) = directory.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return built


def _output(*command: str | Path) -> str:
    """What the command prints when it is run from elsewhere."""
    return subprocess.run(command, cwd="/", check=True, capture_output=True, text=True, timeout=60).stdout
