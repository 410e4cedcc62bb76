"""`scripts/bootstrap` and its groups, with a uv that installs nothing and writes down what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ["requirements.lock", "requirements-libp2p.lock", "requirements-bench.lock", "requirements-dev.lock"]

UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv 0.99.0"; exit; fi
echo "$@" >>"$CHECKOUT/asked"
if [ "$1" = venv ]; then mkdir .venv; cp -a "$CHECKOUT/made/." .venv; fi
exit ${UV_FAILS:-0}
"""

# A Python with or without pip. An environment of its own (`-m venv .uv`) has one. pip puts commands into the folder
# that it is told of, else beside its own Python; in a folder that exists already it replaces nothing.
PYTHON = """#!/bin/sh
case "$*" in
    "-m pip install "*"--target .uv "*) [ {has_pip} = True ] && [ ! -e .uv ] || exit 1; mkdir -p .uv/bin ;;
    "-m pip install "*) [ "$0" = .uv/bin/python ] || exit 1 ;;
    "-m pip "*) [ {has_pip} = True ]; exit ;;
    "-m venv .uv") mkdir -p .uv/bin; cp "$0" .uv/bin/python; exit ;;
    *) exec {python} "$@" ;;
esac
echo "$@" >>"$CHECKOUT/asked"
cp "$CHECKOUT/uv" .uv/bin/uv
"""


class Checkout:
    """A folder with what bootstrap reads, and what it has asked uv to do there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir()
        for name in ("scripts/bootstrap", "pyproject.toml", "hatch_build.py"):
            shutil.copy(ROOT / name, folder / name)
        for lock in ROOT.glob("requirements*.lock"):
            shutil.copy(lock, folder)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "made"], check=True, timeout=60)
        (folder / "bin").mkdir()
        (folder / "bin" / "uv").write_text(UV, encoding="utf-8")
        (folder / "bin" / "uv").chmod(0o755)

    def bootstrap(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"CHECKOUT": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        (self.folder / "asked").unlink(missing_ok=True)
        return subprocess.run(
            [self.folder / "scripts" / "bootstrap", *arguments],
            env={**os.environ, "PYTHON": sys.executable, **settings, **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(("arguments", "locks"), [(["run"], LOCKS[:2]), (["bench"], LOCKS[:3]), ([], LOCKS)])
def test_a_group_installs_its_own_locks_alone(checkout: Checkout, arguments: list[str], locks: list[str]) -> None:
    assert checkout.bootstrap(*arguments).returncode == 0
    _, sync, editable = checkout.asked()
    assert sync.startswith("pip sync ")
    assert [word for word in sync.split() if word in LOCKS] == locks
    assert "--require-hashes" in sync
    assert "--editable ." in editable


def test_what_is_installed_is_not_installed_again(checkout: Checkout) -> None:
    checkout.bootstrap("dev")
    for group in ("run", "bench", "dev"):
        assert checkout.bootstrap(group).returncode == 0
        assert checkout.asked() == []


def test_a_larger_group_is_added_and_nothing_is_removed(checkout: Checkout) -> None:
    checkout.bootstrap("run")
    (mark := checkout.folder / ".venv" / "mark").touch()
    assert checkout.bootstrap("dev").returncode == 0
    (install,) = checkout.asked()
    assert install.startswith("pip install ")
    assert [word for word in install.split() if word in LOCKS] == LOCKS
    assert mark.exists()


def test_the_python_of_the_environment_is_kept(checkout: Checkout) -> None:
    checkout.bootstrap("run")
    (mark := checkout.folder / ".venv" / "mark").touch()
    (other := checkout.folder / "bin" / "python3").write_text("#!/bin/sh\necho 3.99\n", encoding="utf-8")
    other.chmod(0o755)
    assert checkout.bootstrap("dev", PYTHON="").returncode == 0
    assert mark.exists()


def test_a_changed_lock_keeps_the_larger_group(checkout: Checkout) -> None:
    checkout.bootstrap("dev")
    with (checkout.folder / "requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    assert checkout.bootstrap("run").returncode == 0
    sync, _ = checkout.asked()
    assert [word for word in sync.split() if word in LOCKS] == LOCKS


def test_an_install_that_failed_is_started_again_from_nothing(checkout: Checkout) -> None:
    checkout.bootstrap("run")
    assert checkout.bootstrap("dev", UV_FAILS="1").returncode != 0
    assert checkout.bootstrap("dev").returncode == 0
    assert checkout.asked()[0].startswith("venv ")


def test_an_unknown_group_is_refused(checkout: Checkout) -> None:
    done = checkout.bootstrap("everything")
    assert done.returncode == 2
    assert "there are run, bench and dev" in done.stderr
    assert checkout.asked() == []


@pytest.mark.parametrize("has_pip", [True, False])
def test_where_there_is_no_uv_pip_installs_it_from_its_lock(checkout: Checkout, has_pip: bool) -> None:
    (checkout.folder / "uv").write_text(UV, encoding="utf-8")
    (checkout.folder / "uv").chmod(0o755)
    (checkout.folder / "bin" / "uv").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    python = checkout.folder / "bin" / "python"
    python.write_text(PYTHON.format(python=sys.executable, has_pip=has_pip), encoding="utf-8")
    python.chmod(0o755)
    done = checkout.bootstrap("run", PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    with_pip, venv, *_ = checkout.asked()
    assert with_pip.startswith("-m pip install ")
    assert {"--require-hashes", "requirements-bootstrap.lock"} <= set(with_pip.split())
    assert venv.startswith("venv ")
