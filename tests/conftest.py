"""What every test has: ``sessions`` importable, no unit test that runs a program or is skipped."""

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
# Python would look for cycles among the tests all the time while it collects them, a fourth of the
# time of that, and once for each few tests afterwards.
gc.disable()
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


class Beside(MetaPathFinder, Loader):
    """Lets the payload's modules import one another by name, as they do where they run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = path is None and (ROOT / "sessions" / "payload" / f"{name}.py").is_file()
        return ModuleSpec(name, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(f"sessions.payload.{spec.name}")

    def exec_module(self, module: ModuleType) -> None:
        """It was run when it was made."""


sys.meta_path.append(Beside())


def pytest_collection_finish() -> None:
    """What is there now stays, so it is not looked at again."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Else LIEF says as Python ends that it leaks."""
    gc.unfreeze()


@pytest.fixture
def links(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Symbolic links: Windows lets only some users make them."""
    try:
        (tmp_path_factory.mktemp("links") / "link").symlink_to("nowhere")
    except OSError as error:
        if sys.platform != "win32":
            raise
        pytest.skip(f"no symbolic links here: {error}")


@pytest.fixture(autouse=True, scope="module")
def _no_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A unit test that reaches a real tool would start a build, or hang on the network.

    A test that means to may put its own function in these places; the tests of ``run`` itself
    import ``capture`` by name, which this does not touch.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a unit test may not run programs")

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BLACKWHEEL_COMMAND", raising=False)  # how these very tests were called
        if UNIT in request.path.parents:
            patch.setattr("sessions.shared.programs.capture", refuse)
            patch.setattr("sessions.shared.programs.stream", refuse)
            patch.setattr(os, "fsync", lambda _: None)  # no test takes the power away
        yield


def _not_skipped(path: Path, report: Report) -> Report:
    """A skipped unit test fails on Linux: everything that one needs is there, Windows has less."""
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
