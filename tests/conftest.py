"""Guards for all tests: a unit test cannot run programs and is not skipped on Linux."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "tests" / "unit"
ON_LINUX = sys.platform == "linux"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
# Garbage collection takes a fourth of the time in which pytest collects the tests.
gc.disable()
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


class Beside(MetaPathFinder, Loader):
    """Lets the payload's modules import one another by name, as in a bundle."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = path is None and (ROOT / "sessions" / "payload" / f"{name}.py").is_file()
        return ModuleSpec(name, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(f"sessions.payload.{spec.name}")

    def exec_module(self, module: ModuleType) -> None:
        """``create_module`` has already executed it."""


sys.meta_path.append(Beside())


def pytest_collection_finish() -> None:
    """Exclude the objects that exist now from garbage collection."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Otherwise LIEF reports leaks when Python ends."""
    gc.unfreeze()


@pytest.fixture
def links(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the test if the user may not create symbolic links, as on Windows."""
    try:
        (tmp_path_factory.mktemp("links") / "link").symlink_to("nowhere")
    except OSError as error:
        if sys.platform != "win32":
            raise
        pytest.skip(f"no symbolic links here: {error}")


@pytest.fixture(autouse=True, scope="module")
def _no_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A unit test cannot run programs: it could start a build or wait for the network.

    A test may replace these functions. The tests of ``programs`` import ``capture`` by name, which
    is not replaced.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a unit test may not run programs")

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BLACKWHEEL_COMMAND", raising=False)  # set by the nox that runs the tests
        if UNIT in request.path.parents:
            patch.setattr("sessions.shared.programs.capture", refuse)
            patch.setattr("sessions.shared.programs.stream", refuse)
            patch.setattr(os, "fsync", lambda _: None)  # only needed for power failures
        yield


def _not_skipped(path: Path, report: Report) -> Report:
    """On Linux a skipped unit test fails, because Linux has everything that a unit test needs."""
    if ON_LINUX and report.skipped and UNIT in path.parents:
        report.outcome = "failed"
        report.longrepr = f"a unit test is skipped on Linux: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if hasattr(report, "wasxfail") else _not_skipped(item.path, report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _not_skipped(collector.path, (yield))
