"""The values of options: paths are made absolute, and wrong values are refused at the start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sessions.command_line import option_values, parse_options
from sessions.command_line.option_list import OPTIONS
from sessions.shared import errors
from sessions.shared.errors import Problem
from tests import fakes
from tests.problems import raises

WHEEL = "llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl"


@pytest.mark.parametrize(
    "name", ["wheel", "model", "report", "sign", "signers", "source", "record", "toolkit"]
)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("x/y", "{here}/x/y"),
        ("./x", "{here}/x"),
        ("../x", "{here}/../x"),  # not resolved: the parent of a link is another folder
        ("{root}abs/x", "{root}abs/x"),
        ("~/x", "{home}/x"),
    ],
)
def test_a_relative_path_begins_in_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    root = Path(sys.executable).anchor  # "/", or a drive's
    found = option_values.resolve(fakes.parsed(f"--{name}", given.format(root=root)), tmp_path)
    path = expected.format(here=tmp_path, home=tmp_path / "home", root=root)
    assert Path(getattr(found, name)) == Path(path)


def test_a_name_that_is_not_a_path_stays(tmp_path: Path) -> None:
    words = "--toolkit system --compiler g++-12 --baseline seed --baseline ptx --baseline w.whl"
    found = option_values.resolve(fakes.parsed(*words.split()), tmp_path)
    assert (found.toolkit, found.compiler) == ("system", "g++-12")
    assert found.baseline == ("seed", "ptx", str(tmp_path / "w.whl"))
    assert option_values.resolve(fakes.parsed("--toolkit", "pypi"), tmp_path).toolkit == "pypi"


@pytest.mark.usefixtures("links")
def test_a_link_to_a_compiler_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "g++").symlink_to(sys.executable)
    found = option_values.resolve(fakes.parsed("--compiler", "./g++"), tmp_path)
    assert found.compiler == str(tmp_path / "g++")
    option_values.check(found, ["wheel"], "")


def test_every_option_that_names_a_path_is_resolved(tmp_path: Path) -> None:
    for option in OPTIONS:
        if option.metavar and ("PATH" in option.metavar or option.metavar in ("DIR", "KEY")):
            word = "./some.whl"
            found = option_values.resolve(fakes.parsed(option.flag, word), tmp_path)
            assert getattr(found, option.field) == str(tmp_path / "some.whl"), option.flag


def nothing(_: Path) -> None:
    """There is no file."""


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("text")


def fifo(path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no fifo")
    os.mkfifo(path)


FILES = ("wheel", "model", "report", "sign", "signers")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, make) for name in FILES for make in (nothing, folder, fifo)),
        ("model", text),  # not a GGUF file
        ("report", text),  # not JSON
        ("baseline", nothing),
        ("baseline", text),  # not the name of a wheel
        ("wheel", text),
        ("source", nothing),
        ("source", text),
        ("source", folder),  # not a checkout
        ("toolkit", nothing),
        ("toolkit", folder),  # no nvcc
        ("toolkit", text),
        ("compiler", nothing),
        ("compiler", folder),
        ("compiler", text),  # not a program
        ("record", text),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_path_that_is_missing_or_of_another_kind_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "my-wheel.whl"
    make(path)
    chosen = parse_options.parse([f"--{name}", str(path)])
    with pytest.raises(Problem) as caught:
        option_values.check(chosen, ["smoke"], "")
    assert (caught.value.id, caught.value.code) == (f"{name}-argument", errors.USAGE)
    assert str(path) in caught.value.what
    assert f"--{name}" in caught.value.remedy


def test_valid_values_are_accepted(tmp_path: Path) -> None:
    wheel, model, plain = tmp_path / WHEEL, tmp_path / "m.gguf", tmp_path / "plain"
    wheel.touch()
    model.write_bytes(b"GGUF\x03\0\0\0")
    plain.touch()
    report = tmp_path / "r.json"
    report.write_text("{}")
    report.with_name("r.json.sig").touch()
    for name in ("ssh-keygen", "sigstore"):
        program = tmp_path / (f"{name}.exe" if sys.platform == "win32" else name)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "source" / "llama_cpp").mkdir(parents=True)
    (tmp_path / "source" / "llama_cpp" / "__init__.py").touch()
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    (tmp_path / "cuda" / "bin" / "nvcc").touch()
    for words in (
        ["--wheel", wheel, "--model", model, "--baseline", wheel, "--baseline", "upstream"],
        ["--report", report, "--signers", plain, "--sigstore"],
        ["--sign", plain, "--record", tmp_path / "new", "--toolkit", "system"],
        ["--record", tmp_path, "--toolkit", tmp_path / "cuda"],
        ["--source", tmp_path / "source", "--compiler", sys.executable],
        ["--compiler", Path(sys.executable).name],
    ):
        chosen = parse_options.parse(list(map(str, words)))
        folders = (str(tmp_path), str(Path(sys.executable).parent))
        option_values.check(chosen, ["bench"], os.pathsep.join(folders))


def test_a_wrong_file_name_of_a_wheel_is_left_to_verify(tmp_path: Path) -> None:
    path = tmp_path / "my-wheel.whl"
    path.touch()
    chosen = parse_options.parse(["--wheel", str(path)])
    option_values.check(chosen, ["verify"], "")
    for session in ("smoke", "bench"):
        with raises("wheel-argument"):
            option_values.check(chosen, ["verify", session], "")


@pytest.mark.parametrize(
    ("words", "id"),
    [
        (["--compiler", "g++-99"], "compiler-argument"),
        (["--sign", "key"], "ssh-keygen-missing-at-start"),
        (["--report", "r.json", "--signers", "key"], "ssh-keygen-missing-at-start"),
        (["--sigstore"], "sigstore-missing-at-start"),
    ],
)
def test_a_program_that_is_needed_at_the_end_must_be_there_at_the_start(
    tmp_path: Path, words: list[str], id: str
) -> None:
    for name, content in (("key", ""), ("r.json", "{}"), ("r.json.sig", "")):
        (tmp_path / name).write_text(content)
    chosen = option_values.resolve(parse_options.parse(words), tmp_path)
    with pytest.raises(Problem) as caught:
        option_values.check(chosen, ["release"], str(tmp_path))
    code = errors.USAGE if id == "compiler-argument" else errors.ENVIRONMENT
    assert (caught.value.id, caught.value.code) == (id, code)


def test_a_report_without_a_signature_is_refused_with_signers(tmp_path: Path) -> None:
    for name, content in (("key", ""), ("r.json", "{}")):
        (tmp_path / name).write_text(content)
    words = ["--report", "r.json", "--signers", "key"]
    chosen = option_values.resolve(parse_options.parse(words), tmp_path)
    with raises("report-argument") as caught:
        option_values.check(chosen, ["smoke"], os.environ["PATH"])
    assert "r.json.sig" in caught.value.what


def test_a_missing_folder_of_reports_is_refused(tmp_path: Path) -> None:
    chosen = parse_options.parse(["--targets", "cpu,rtx50", "--reports", str(tmp_path / "gone")])
    with raises("reports-argument") as caught:
        option_values.check(chosen, ["release"], "")
    assert caught.value.code == errors.USAGE
    assert "the folder smoke-reports" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "{", "\0", "1"])
def test_a_report_that_is_not_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with raises("report-argument"):
        option_values.check(parse_options.parse(["--report", str(path)]), ["smoke"], "")


@pytest.mark.parametrize(("session", "flag"), [("lock", "--add"), ("matrix", "--targets")])
def test_a_session_without_its_required_option_is_refused(session: str, flag: str) -> None:
    with raises("option-missing") as caught:
        option_values.check(parse_options.parse([]), [session], "")
    assert caught.value.code == errors.USAGE
    assert flag in caught.value.what
    option_values.check(parse_options.parse([]), ["wheel"], "")
