"""auditwheel and delvewheel: their arguments, and the wheel that is repacked after them."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sessions.build import platform_tag
from sessions.shared.programs import Finished
from tests.problems import raises

INFO = "llama_cpp_python-0.3.16.dist-info"
NAME = "llama_cpp_python-0.3.16-cp311-cp311-win_amd64.whl"
TIME = (2022, 11, 9, 12, 37, 20)
MEMBERS = ["llama_cpp/__init__.py", "llama_cpp/lib/ggml.dll", "llama_cpp/lib/llama.dll"]
RECORD = b"llama_cpp/b.py,sha256=b,1\nllama_cpp/a.py,sha256=a,1\n"


def pack(path: Path, names: Sequence[str], modes: int = 0o644, record: bytes = RECORD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, TIME)
            info.external_attr = (stat.S_IFREG | modes) << 16
            archive.writestr(info, record if name.endswith("RECORD") else name.encode())
    return path


class Tools:
    """Stands for auditwheel and delvewheel: records their arguments, and leaves a wheel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
        self.code, self.env = code, dict[str, str]()
        monkeypatch.setattr("sessions.shared.programs.capture", self)

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
    ) -> Finished:
        assert "-I" in command or cwd  # no file where the command was typed is a module
        self.command, self.env = list(command), dict(env)
        if self.code == 0:
            out = Path(command[command.index("-w") + 1])
            pack(out / NAME, [f"{INFO}/RECORD", "llama_cpp/", *reversed(MEMBERS)])
        return Finished(tuple(command), self.code, "Unable to find library: libfoo.dll", 1.0)

    @property
    def excluded(self) -> list[str]:
        return [b for a, b in zip(self.command, self.command[1:], strict=False) if a == "--exclude"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return pack(tmp_path / "dist" / NAME, [*MEMBERS, f"{INFO}/RECORD"])


def test_on_linux_the_driver_and_nvidias_runtime_are_not_copied(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    platform_tag.linux("python", raw, tmp_path / "out", {"PATH": "/usr/bin"})
    assert tools.command[:4] == ["python", "-I", "-m", "auditwheel"]
    assert set(tools.excluded) >= {"libcuda.so.*", "libcublasLt.so.*"}
    assert tools.env == {"PATH": "/usr/bin"}


def test_on_windows_only_the_given_folders_are_searched_and_our_dlls_are_not_copied(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, out = Tools(monkeypatch), tmp_path / "out"
    env = {"PATH": r"C:\Windows\System32", "SOURCE_DATE_EPOCH": "1667997441"}
    platform_tag.windows("python", raw, out, [tmp_path / "CRT", tmp_path / "OpenMP"], env)
    assert tools.excluded == [
        "nvcuda.dll", "cudart64_*.dll", "cublas*64_*.dll", "vcruntime140*.dll",
        "ggml.dll", "llama.dll",
    ]  # fmt: skip
    # Our libraries are plain DLLs, and the line that loads them stays the first.
    assert {"--analyze-existing", "--custom-patch"} <= set(tools.command)
    assert tools.env == {
        "PATH": f"{tmp_path / 'CRT'}{os.pathsep}{tmp_path / 'OpenMP'}",
        "SOURCE_DATE_EPOCH": "1667997441",
        "PYTHONHASHSEED": "0",
    }
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == [*MEMBERS, f"{INFO}/RECORD"]


def test_an_error_of_the_tool_is_shown(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tools(monkeypatch, code=1)
    with raises("auditwheel-refused") as caught:
        platform_tag.linux("python", raw, tmp_path / "out", {})
    assert "libfoo.dll" in caught.value.evidence
    with raises("delvewheel-refused") as caught:
        platform_tag.windows("python", raw, tmp_path / "out", [tmp_path], {})
    assert "libfoo.dll" in caught.value.evidence


def test_repacked_wheels_do_not_depend_on_the_order_and_modes_of_members(tmp_path: Path) -> None:
    names = [*MEMBERS, f"{INFO}/METADATA", f"{INFO}/RECORD"]
    turned = b"".join(reversed(RECORD.splitlines(keepends=True)))
    one = pack(tmp_path / "one" / NAME, ["llama_cpp/", *names], 0o644)
    other = pack(tmp_path / "other" / NAME, names[::-1], 0o600, turned)
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    repacked = platform_tag.repacked(one, tmp_path / "1")
    assert repacked.read_bytes() == platform_tag.repacked(other, tmp_path / "2").read_bytes()
    with zipfile.ZipFile(repacked) as archive:
        assert archive.namelist() == names  # .dist-info comes last, as the specification says
        assert {info.date_time for info in archive.infolist()} == {TIME}
        assert archive.read(f"{INFO}/METADATA") == f"{INFO}/METADATA".encode()
        assert sorted(archive.read(f"{INFO}/RECORD").splitlines()) == sorted(RECORD.splitlines())
