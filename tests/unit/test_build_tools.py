"""The venv of the build tools, and the toolkit that its pip unpacks: complete, or absent."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.fetch import build_tools, main_toolkit
from sessions.shared import disk, in_use, knowledge, programs, records
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

CUDA_H = "CUresult CUDAAPI cuInit(unsigned int Flags);"
HOST_CONFIG = """
#if __GNUC__ > 15
#error -- unsupported GNU version! gcc versions later than 15 are not supported!
"""


class Pip:
    """Stands for every program: a venv is a folder, and pip unpacks a toolkit, using TMPDIR."""

    def __init__(self) -> None:
        self.temporary: list[Path] = []
        self.killed = False

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str], **_: object) -> Finished:
        named = dict(itertools.pairwise(command))
        if "pip" in command and "config" not in command:
            folder = Path(env["TMPDIR"])
            assert env["TEMP"] == env["TMP"] == env[programs.BUILD_MARK] == str(folder)
            (folder / "pip-unpack").mkdir()
            self.temporary.append(folder)
            if self.killed:
                raise KeyboardInterrupt
        if "--target" in named:
            root = Path(named["--target"]) / "nvidia" / "cu13"
            (root / "include" / "crt").mkdir(parents=True)
            (root / "lib").mkdir()
            (root / "include" / "cuda.h").write_text(CUDA_H)
            (root / "include" / "crt" / "host_config.h").write_text(HOST_CONFIG)
        return Finished(tuple(command), 0, "", 0.1)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    fake = Pip()
    monkeypatch.setattr(programs, "capture", fake)
    monkeypatch.setattr(main_toolkit, "accepted", lambda *_: knowledge.toolkit("13.1").accepts)
    return fake


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    found = fakes.context(tmp_path, session="toolkit", asked=frozenset({"toolkit"}))
    records.write(found.record("probe"), "probe", fakes.chain())
    disk.mark(found.cache)
    return found


def folders(ctx: Context) -> list[str]:
    return sorted(p.name.rpartition("-")[0] for p in ctx.cache.iterdir() if "-" in p.name)


@pytest.mark.skipif(sys.platform == "win32", reason="stand-ins for a toolkit of Linux")
def test_a_toolkit_is_unpacked_in_the_cache_and_no_temporary_file_remains(
    ctx: Context, pip: Pip
) -> None:
    found, fresh = main_toolkit.from_pypi(ctx, "13.1")
    assert fresh
    assert (Path(found.root) / "lib" / "stubs").is_dir()
    assert folders(ctx) == ["cuda-13.1", "tools-py3.11"]
    assert {folder.parent for folder in pip.temporary} == {ctx.cache / "tmp"}
    assert not [path for path in (ctx.cache / "tmp").iterdir() if path.is_dir()]
    assert main_toolkit.from_pypi(ctx, "13.1") == (found, False)


def test_an_interrupted_download_leaves_no_toolkit(ctx: Context, pip: Pip) -> None:
    build_tools.tools(ctx)
    pip.killed = True
    with pytest.raises(KeyboardInterrupt):
        main_toolkit.from_pypi(ctx, "13.1")
    assert folders(ctx) == ["tools-py3.11"]
    assert not [path for path in (ctx.cache / "tmp").iterdir() if path.is_dir()]


@pytest.mark.parametrize("step", ["tools", "toolkit"])
def test_free_space_is_checked_before_anything_is_downloaded(
    ctx: Context, pip: Pip, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    if step == "toolkit":
        build_tools.tools(ctx)
        pip.temporary.clear()
    checked: list[dict[Path, int]] = []

    def room(needs: dict[Path, int], what: str) -> None:
        checked.append(needs)
        raise Problem("full", id="disk-too-small", remedy="none")

    monkeypatch.setattr(disk, "room", room)
    with raises("disk-too-small"):
        main_toolkit.from_pypi(ctx, "13.1") if step == "toolkit" else build_tools.tools(ctx)
    assert pip.temporary == []
    ((folder, mib),) = checked[0].items()
    assert (folder.parent, mib) == (ctx.cache, knowledge.disk_mib(step))


@pytest.mark.skipif(sys.platform == "win32", reason="stand-ins for a toolkit of Linux")
def test_fresh_waits_until_no_run_uses_the_toolkit(
    ctx: Context, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = main_toolkit.from_pypi(ctx, "13.1")
    name = Path(found.root).parents[1].name
    # This process uses the toolkit now, in place of another run.
    waited: list[str] = []
    monkeypatch.setattr("sessions.shared.console.say", waited.append)

    def ended(_: Any) -> None:
        in_use.share.cache_clear()  # this releases the locks of its users

    monkeypatch.setattr("time.sleep", ended)
    fresh = fakes.context(ctx.root, "--fresh", session="toolkit", asked=frozenset({"toolkit"}))
    assert main_toolkit.from_pypi(fresh, "13.1") == (found, True)
    assert any(f"{name} is in use" in text for text in waited)
    assert folders(ctx) == ["cuda-13.1", "tools-py3.11"]


def test_every_row_of_disk_toml_has_a_source() -> None:
    for step, row in knowledge.load("disk.toml").items():
        assert row["mib"] > 0, step
        assert row["source"], step
