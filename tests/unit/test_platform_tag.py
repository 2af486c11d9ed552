"""The wheel made fit for other machines: what the tools are told, and what of it is kept."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sessions.build import platform_tag
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished

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
    """auditwheel and delvewheel: what they were told, and what they leave."""

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


def test_on_linux_the_driver_and_nvidias_runtime_stay_out(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    platform_tag.linux("python", raw, tmp_path / "out", {"PATH": "/usr/bin"})
    assert tools.command[:4] == ["python", "-I", "-m", "auditwheel"]
    assert set(tools.excluded) >= {"libcuda.so.*", "libcublasLt.so.*"}
    assert tools.env == {"PATH": "/usr/bin"}


def test_on_windows_cuda_pythons_runtime_and_its_own_libraries_are_not_copied(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    platform_tag.windows("python", raw, tmp_path / "out", [tmp_path], {})
    assert tools.excluded == [
        "nvcuda.dll", "cudart64_*.dll", "cublas*64_*.dll", "vcruntime140*.dll",
        "ggml.dll", "llama.dll",
    ]  # fmt: skip
    # Our libraries are plain DLLs, and the line that loads them stays the first.
    assert {"--analyze-existing", "--custom-patch"} <= set(tools.command)


def test_on_windows_nothing_is_looked_for_but_in_the_given_folders(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(monkeypatch)
    env = {"PATH": r"C:\Windows\System32", "SOURCE_DATE_EPOCH": "1667997441"}
    platform_tag.windows(
        "python", raw, tmp_path / "out", [tmp_path / "CRT", tmp_path / "OpenMP"], env
    )
    assert tools.env == {
        "PATH": f"{tmp_path / 'CRT'}{os.pathsep}{tmp_path / 'OpenMP'}",
        "SOURCE_DATE_EPOCH": "1667997441",
        "PYTHONHASHSEED": "0",
    }


def test_the_repaired_wheel_lies_alone_where_it_is_looked_for(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tools(monkeypatch)
    platform_tag.windows("python", raw, tmp_path / "out", [tmp_path], {})
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == [*MEMBERS, f"{INFO}/RECORD"]


@pytest.mark.parametrize("system", ["linux", "windows"])
def test_what_the_tool_refuses_is_said_with_its_words(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    Tools(monkeypatch, code=1)

    def work() -> None:
        if system == "windows":
            platform_tag.windows("python", raw, tmp_path / "out", [tmp_path], {})
        else:
            platform_tag.linux("python", raw, tmp_path / "out", {})

    with pytest.raises(Problem, match="wheel refuses the wheel") as caught:
        work()
    assert "libfoo.dll" in caught.value.evidence


def test_whatever_the_order_and_modes_were_the_repacked_wheel_is_the_same(tmp_path: Path) -> None:
    names = [*MEMBERS, f"{INFO}/METADATA", f"{INFO}/RECORD"]
    folder = ["llama_cpp/"]
    one = pack(tmp_path / "one" / NAME, folder + names, 0o644)
    turned = b"".join(reversed(RECORD.splitlines(keepends=True)))
    other = pack(tmp_path / "other" / NAME, names[::-1], 0o600, turned)
    assert one.read_bytes() != other.read_bytes()
    made = [tmp_path / "1", tmp_path / "2"]
    for source, folder_ in zip((one, other), made, strict=True):
        folder_.mkdir()
        platform_tag.repacked(source, folder_)
    assert (made[0] / NAME).read_bytes() == (made[1] / NAME).read_bytes()


def test_a_repacked_wheel_has_the_members_bytes_and_times_of_the_other(tmp_path: Path) -> None:
    names = [f"{INFO}/METADATA", f"{INFO}/RECORD", *MEMBERS]
    old = pack(tmp_path / NAME, names)
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(platform_tag.repacked(old, tmp_path / "out")) as archive:
        # The documents come last, as the specification has it.
        assert archive.namelist() == [*MEMBERS, f"{INFO}/METADATA", f"{INFO}/RECORD"]
        assert {info.date_time for info in archive.infolist()} == {TIME}
        assert archive.read(f"{INFO}/METADATA") == f"{INFO}/METADATA".encode()
        assert sorted(archive.read(f"{INFO}/RECORD").splitlines()) == sorted(RECORD.splitlines())
