"""Build hook: puts the locked libp2p into BZZZ's wheel and sdist.

libp2p 0.8.1 pins fastecdsa 2.3.2, which has no wheel: a package that depends on libp2p needs a C compiler wherever it
is installed. So BZZZ depends on what libp2p imports, with a fastecdsa that has wheels, and its wheel has libp2p's code.
docs/decisions/27-libp2p-in-our-wheel.md has the reasons and the other ways that were tried.

The wheel of libp2p is taken from `vendor/` if it is there: an sdist carries it, and a build keeps it there for the
next one. Otherwise pip downloads it by name, from the index that this machine's pip is set up for. It must have a hash
that requirements-libp2p.lock names. HATCH_BUILD_NO_HOOKS=true leaves it out (scripts/bootstrap installs it instead).
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOCK = "requirements-libp2p.lock"


class LibP2PBuildHook(BuildHookInterface[Any]):
    """hatchling asks for `dependencies`, and calls `initialize` before a build and `finalize` after it."""

    PLUGIN_NAME = "custom"
    _scratch: str | None = None

    def dependencies(self) -> list[str]:
        """What the build environment must have: pip, unless there is nothing to download."""
        return [] if self._kept.is_file() else ["pip>=23"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add libp2p to the files of the wheel, or its wheel to the files of the sdist."""
        wheel = locked_wheel(self._kept, Path(self.root, LOCK))
        if self.target_name == "sdist":
            build_data["force_include"][str(wheel)] = f"vendor/{wheel.name}"
            return
        self._scratch = tempfile.mkdtemp(prefix="bzzz-build-")
        data = f"{self.build_config.builder.project_id}.data"
        included = "force_include_editable" if version == "editable" else "force_include"
        for source, target in unpacked(wheel, Path(self._scratch), data).items():
            build_data[included][str(source)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was unpacked."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch)

    @property
    def _kept(self) -> Path:
        return Path(self.root, "vendor", f"libp2p-{locked_version(Path(self.root, LOCK))}-py3-none-any.whl")


def locked_version(lock: Path) -> str:
    """The version of libp2p that the lock names."""
    found = re.search(r"^libp2p==([0-9.]+) ", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{lock} names no version of libp2p")
    return found[1]


def locked_wheel(kept: Path, lock: Path) -> Path:
    """The path of libp2p's wheel: `kept`, downloaded first where it is missing. Raises `ValueError` on a wrong hash."""
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as folder:
            _download(lock, Path(folder))
            os.replace(Path(folder, kept.name), kept)  # at once: another build may do the same
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    if f"--hash=sha256:{digest}" not in lock.read_text(encoding="utf-8").split():
        raise ValueError(f"{kept} is not the file that {lock.name} names (its SHA-256 is {digest}): remove it")
    return kept


def unpacked(wheel: Path, folder: Path, data: str) -> dict[Path, str]:
    """Unpack libp2p's wheel into `folder`; return the paths to include, and where in our wheel each of them goes.

    libp2p reads its own version from its metadata when it is imported. So the metadata goes along, with the licences:
    by way of our data folder, since a wheel has one metadata folder of its own. It asks for nothing (our metadata
    does), and has no list of files: they are ours, and pip refuses to remove a package without one.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (found,) = folder.glob("libp2p-*.dist-info")
    (metadata := found / "METADATA").write_text(_without_requirements(metadata.read_text(encoding="utf-8")), "utf-8")
    (installer := found / "INSTALLER").write_text("bzzz\n", "utf-8")
    kept = {part: f"{data}/purelib/{found.name}/{part.name}" for part in (metadata, installer, found / "licenses")}
    return {folder / "libp2p": "libp2p", **kept}


def _download(lock: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--require-hashes", "--requirement", str(lock), "--dest", str(folder)]
    try:
        subprocess.run(command, env=settings_for_pip(), check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"libp2p could not be downloaded ({error}). Without an index that pip reaches, put the wheel that {lock}"
            f" names into the folder vendor beside it."
        ) from None


def settings_for_pip() -> dict[str, str]:
    """The environment, with the index and the certificates that uv was told of where pip was told of none."""
    environment = dict(os.environ)
    for of_pip, of_uv in (("PIP_INDEX_URL", "UV_INDEX_URL"), ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")):
        if of_pip not in environment and environment.get(of_uv):
            environment[of_pip] = environment[of_uv]
    if "PIP_CERT" not in environment and environment.get("SSL_CERT_FILE"):
        environment["PIP_CERT"] = environment["SSL_CERT_FILE"]
    return environment


def _without_requirements(metadata: str) -> str:
    head, blank, description = metadata.partition("\n\n")
    lines = [line for line in head.splitlines() if not line.startswith(("Requires-Dist:", "Provides-Extra:"))]
    return "\n".join(lines) + blank + description
