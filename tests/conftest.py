"""The safety net under every test: a deadline for each async test, and nothing left running at the end.

A test that waits for a condition which never comes must fail by name, with its own stack, and leave the rest of the
suite in peace. So every async test runs inside `trio.fail_after`, 120 seconds unless it says otherwise with
`@pytest.mark.deadline(seconds)`. Under a mock clock seconds mean nothing, and a test stuck in plain code never comes
back to trio: for these pytest's own `faulthandler_timeout` is the last net.

A process, a thread or a listening socket that outlives the suite is a defect of the suite: it fails. So is a file
that a test leaves in the checkout: tests run in a temporary folder.
"""

import contextlib
import functools
import gc
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

DEADLINE_SECONDS = 120.0
LEAVE_SECONDS_MAX = 20.0
"""How long what a test has ended may take to be gone."""
CACHES = (
    ".pytest_cache",
    ".hypothesis",
    ".coverage",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
    "__pycache__",
)
"""How names begin that tools add to the root of the checkout, with the tests or beside them."""

# No test times itself: a slow machine is no defect of the code.
settings.register_profile("bzzz", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bzzz")

_LEAKS = pytest.StashKey[list[str]]()
_ENTRIES = pytest.StashKey[frozenset[str]]()
_AsyncTest = Callable[..., Awaitable[None]]


# -- a deadline for every async test --------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function):
            marker = item.get_closest_marker("deadline")
            _bound(item, float(marker.args[0]) if marker else DEADLINE_SECONDS)


def _bound(item: pytest.Function, seconds: float) -> None:
    """Put the deadline round the test's coroutine function, or round the one that hypothesis calls again and again."""
    by_hypothesis = getattr(item.obj, "hypothesis", None)
    if by_hypothesis is not None:
        if inspect.iscoroutinefunction(by_hypothesis.inner_test) and not hasattr(by_hypothesis.inner_test, "is_bound"):
            by_hypothesis.inner_test = _within(by_hypothesis.inner_test, seconds)
    elif inspect.iscoroutinefunction(item.obj):
        item.obj = _within(item.obj, seconds)


def _within(test: _AsyncTest, seconds: float) -> _AsyncTest:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            await test(*args, **kwargs)
            return
        stuck: BaseException | None = None
        with trio.move_on_after(seconds) as scope:
            try:
                await test(*args, **kwargs)
            except BaseException as error:
                stuck = error  # its traceback shows where the test was waiting
                raise
        if scope.cancelled_caught:
            raise AssertionError(f"after {seconds:g} seconds it still waits for what never came") from stuck

    bounded.is_bound = True  # type: ignore[attr-defined]
    return bounded


# -- nothing is left in the checkout --------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests run in a folder of their own: what one writes to a relative path is not in the checkout."""
    with contextlib.chdir(tmp_path_factory.mktemp("working-folder")):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Another home than the user's: a node has its data there unless it is started with another data directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_ENTRIES] = frozenset(_entries(session.config))


def _entries(config: pytest.Config) -> Iterator[str]:
    """What is in the root of the checkout, without caches of tools."""
    return (name for name in os.listdir(config.rootpath) if not name.startswith(CACHES))


# -- nothing is left running ----------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    leaks = config.stash.setdefault(_LEAKS, [])
    if not getattr(config.option, "numprocesses", None):  # else the tests ran in workers, which have reported theirs
        leaks += _leaks()
    if not hasattr(config, "workerinput"):
        before = config.stash[_ENTRIES]
        new = sorted(name for name in _entries(config) if name not in before)
        leaks += (f"file {name!r} in {config.rootpath}, which was not there before" for name in new)
    if hasattr(config, "workeroutput"):
        config.workeroutput["leaks"] = leaks
    elif leaks and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of xdist has ended, in good order or not."""
    leaks = getattr(node, "workeroutput", {}).get("leaks", [])
    node.config.stash.setdefault(_LEAKS, []).extend(leaks)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    leaks = config.stash.get(_LEAKS, [])
    if leaks:
        terminalreporter.section("left by the tests", red=True)
        for leak in leaks:
            terminalreporter.write_line(leak)


def _leaks() -> Iterator[str]:
    """What is still there once it had time to go."""
    deadline = time.monotonic() + LEAVE_SECONDS_MAX
    gc.collect()
    while (left := [*_processes(), *_threads(), *_sockets()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield from left


def _processes() -> Iterator[str]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            # multiprocessing's own bookkeeper lives as long as its parent.
            if "multiprocessing.resource_tracker" not in command:
                yield f"process {child.pid}: {command[:200] or 'ended, and nobody waited for it'}"


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        # trio keeps idle workers for ten seconds; they are daemons and hold nothing.
        if thread is not threading.main_thread() and not thread.name.startswith("Trio "):
            yield f"thread {thread.name}{' (daemon)' if thread.daemon else ''}"


def _sockets() -> Iterator[str]:
    for connection in psutil.Process().net_connections(kind="inet"):
        yield f"socket {connection.laddr} {connection.status} {connection.raddr}"
