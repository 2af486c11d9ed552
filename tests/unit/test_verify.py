"""The session verify: what it checks and writes, and when it reads a wheel again."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sessions.build import import_hooks
from sessions.shared import code_digest, records
from sessions.shared.context import Context
from sessions.shared.errors import USAGE
from sessions.verify import checks_digest, main_verify
from sessions.verify.record_types import VerifyReport
from sessions.verify.wheel_facts import WheelFacts
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel_facts().file
SESSIONS = fakes.ROOT / "sessions"
Output = pytest.CaptureFixture[str]


def loader(cuda: str | None = "13.1") -> str:
    """The digest of our modules in the rtx50 wheel, or in a CPU wheel."""
    texts = {p.name: p.read_text(encoding="utf-8") for p in SESSIONS.glob("build/overlay/*.py")}
    archs = ("120-real",) if cuda else ()
    ours = import_hooks.modules(texts, platform="linux", cuda=cuda, archs=archs)
    filled = import_hooks.loader_text(ours)
    return records.text_sha256(filled.encode())


class Reader:
    """Fake reader: sound facts of the file, with the changes in ``planted``."""

    def __init__(self) -> None:
        self.read_files: list[Path] = []
        self.planted: dict[str, Any] = {}
        self.scratch = Path()
        self.env: Mapping[str, str] = {}

    def __call__(self, wheel: Path, *args: Any) -> WheelFacts:
        self.scratch, self.env, jobs, progress = args
        assert self.scratch.is_dir()
        assert jobs >= 1
        self.read_files.append(wheel)
        progress(0, 0, "llama_cpp/lib/libllama.so")
        progress(5 << 20, 5 << 20, "llama_cpp/lib/libggml-cuda.so")
        sha256 = records.file_sha256(wheel)
        found = fakes.wheel_facts(file=wheel.name, sha256=sha256, loader=loader())
        return dataclasses.replace(found, **self.planted)


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    played = Reader()
    monkeypatch.setattr("sessions.verify.main_verify.reader.read", played)
    monkeypatch.setattr(
        "sessions.verify.main_verify.wheel_rules.upstream", lambda _: fakes.upstream()
    )
    return played


def verifying(root: Path, *words: str, **changes: Any) -> Context:
    """The context of ``nox -s verify -- …`` for the rtx50 target."""
    named: dict[str, Any] = {"session": "verify", "asked": frozenset({"verify"})}
    return fakes.context(root, *words, **{**named, "spec": fakes.claiming(), **changes})


def build(ctx: Context, content: bytes = b"a wheel") -> Path:
    """The target's wheel with the record of its build, as the session wheel writes them."""
    path = ctx.wheels / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = fakes.wheel_facts(sha256=records.file_sha256(path))
    records.write(ctx.record("wheel"), "wheel", fakes.recorded(found))
    return path


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    context = verifying(tmp_path)
    build(context)
    return context


def report(ctx: Context) -> VerifyReport | None:
    return records.read(ctx.record("verify"), "verify", VerifyReport)


def statuses(folder: Path) -> dict[str, str]:
    left = json.loads((folder / "verify.json").read_text(encoding="utf-8"))["verify"]
    return {check["id"]: check["status"] for group in left["groups"] for check in group["checks"]}


def test_a_sound_wheel_passes_with_output_report_and_facts(ctx: Context, capsys: Output) -> None:
    main_verify.main(ctx)
    output = capsys.readouterr().out
    assert f"Reading {NAME}" in output
    assert "Device code\n" in output
    assert "gpu-code: sm_120: 98 × SASS in libggml-cuda.so" in output
    assert f"verify: 19 checks passed for {NAME}, in " in output
    written = report(ctx)
    assert written is not None
    assert (written.file, written.target) == (NAME, "rtx50")
    assert written.sha256 == records.file_sha256(ctx.wheels / NAME)
    assert {c.status for g in written.groups for c in g.checks} == {"ok"}
    found = records.read(ctx.record("facts"), "facts", WheelFacts)
    assert found == fakes.wheel_facts(sha256=written.sha256, loader=loader())


@pytest.mark.parametrize("fails", [False, True])
def test_unpacked_files_are_deleted(fails: bool, ctx: Context, reader: Reader) -> None:
    reader.planted = {"purelib": fails}
    with raises("verify-failed") if fails else contextlib.nullcontext():
        main_verify.main(ctx)
    assert reader.scratch.parent == ctx.cache / "tmp"
    assert not reader.scratch.exists()


def test_readers_get_only_the_environment_that_every_program_needs(
    ctx: Context, reader: Reader
) -> None:
    env = {"HOME": "/home/user", "PATH": "/usr/bin", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/y"}
    main_verify.main(dataclasses.replace(ctx, env=env))
    assert reader.env == {"HOME": "/home/user"}


def test_a_wheel_that_was_checked_is_not_read_again(
    ctx: Context, reader: Reader, capsys: Output
) -> None:
    main_verify.main(ctx)
    first = ctx.record("verify").read_bytes()
    capsys.readouterr()
    main_verify.main(ctx)
    assert len(reader.read_files) == 1
    assert ctx.record("verify").read_bytes() == first
    assert f"verify: up to date, 19 checks passed for {NAME}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "reads"), [({"verify"}, 2), ({"release"}, 1)], ids=["this", "another"]
)
def test_fresh_reads_again_if_this_session_was_requested(
    asked: set[str], reads: int, tmp_path: Path, reader: Reader
) -> None:
    ctx = verifying(tmp_path, "--fresh", asked=frozenset(asked))
    build(ctx)
    main_verify.main(verifying(tmp_path))
    main_verify.main(ctx)
    assert len(reader.read_files) == reads


Change = Callable[[Context], Context]


def for_target(**changes: Any) -> Change:
    return lambda ctx: dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, **changes))


def another_wheel(ctx: Context) -> Context:
    build(ctx, b"another wheel")
    return ctx


def swapped(ctx: Context) -> Context:
    (ctx.wheels / NAME).write_bytes(b"swapped")
    return ctx


def another_record(ctx: Context) -> Context:
    found = fakes.wheel_facts(sha256=records.file_sha256(ctx.wheels / NAME))
    records.write(ctx.record("wheel"), "wheel", fakes.recorded(found, compiler="gnu 13.1.0"))
    return ctx


def with_report(text: str) -> Change:
    def change(ctx: Context) -> Context:
        ctx.record("verify").write_text(text, encoding="utf-8")
        return ctx

    return change


@pytest.mark.parametrize(
    ("change", "reads", "fails"),
    [
        (another_wheel, 2, False),
        (swapped, 2, True),
        (another_record, 2, False),
        (for_target(budget_mb=20), 2, False),
        (for_target(device_features=()), 2, False),
        (for_target(archs=("120",)), 2, True),
        (for_target(cuda="13.2"), 2, True),
        (with_report(""), 2, False),
        (with_report("{}"), 2, False),
        (with_report('{"schema": 1, "ok": true}'), 2, False),
        # No check reads these.
        (for_target(summary="other words", warning="mind"), 1, False),
        (for_target(cache="none"), 1, False),
        (for_target(compiler="/usr/bin/g++", prerelease=True), 1, False),
    ],
)
def test_a_wheel_is_read_again_if_its_file_record_target_or_report_has_changed(
    change: Change, reads: int, fails: bool, ctx: Context, reader: Reader
) -> None:
    main_verify.main(ctx)
    changed = change(ctx)
    with raises("verify-failed") if fails else contextlib.nullcontext():
        main_verify.main(changed)
    assert len(reader.read_files) == reads
    assert (report(ctx) is None) is fails


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's files, of which ``verify`` makes its fingerprint."""
    copy = tmp_path / "sessions"
    shutil.copytree(SESSIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(main_verify, "OVERLAY", copy / "build" / "overlay")
    monkeypatch.setattr(code_digest, "SESSIONS", copy)
    return copy


CHECKING = [
    "verify/main_verify.py",
    "verify/zip_archive.py",
    "verify/check_input.py",
    "verify/checks_gpu_code.py",
    "verify/cpu_code.py",
    "verify/run_checks.py",
    "verify/library.py",
    "shared/knowledge.py",
    "build/import_hooks.py",
    "data/knowledge/cuda.toml",
    "data/knowledge/wheel_policy.toml",
    "data/knowledge/sdists.toml",
    "data/locks/runtime.txt",
]


def test_a_wheel_is_read_again_if_code_or_data_has_changed(
    ctx: Context, reader: Reader, rules: Path
) -> None:
    main_verify.main(ctx)
    main_verify.main(ctx)
    assert len(reader.read_files) == 1
    for count, rule in enumerate(CHECKING, 2):
        with (rules / rule).open("a", encoding="utf-8") as text:
            text.write("\nX==1\n" if rule.endswith(".txt") else "\nX = 1\n")
        main_verify.main(ctx)
        assert len(reader.read_files) == count, rule


def test_a_wheel_is_not_read_again_if_a_comment_has_changed(
    ctx: Context, reader: Reader, rules: Path
) -> None:
    main_verify.main(ctx)
    for rule in CHECKING:
        text = (rules / rule).read_text(encoding="utf-8")
        if rule.endswith(".py"):
            text = text.replace('"""', '"""Otherwise: ', 1).replace("\n\n\n", "\n\n\n# why\n\n")
        (rules / rule).write_text(f"# a comment\n{text}\n# another\n", encoding="utf-8")
        main_verify.main(ctx)
        assert len(reader.read_files) == 1, rule


def test_a_wheel_is_not_read_again_if_other_code_has_changed(
    ctx: Context, reader: Reader, rules: Path
) -> None:
    main_verify.main(ctx)
    checking = {path.relative_to(rules).as_posix() for path in checks_digest.files()}
    others = [p for p in rules.rglob("*") if p.suffix in (".py", ".toml", ".txt")]
    others = [path for path in others if path.relative_to(rules).as_posix() not in checking]
    names = {path.relative_to(rules).as_posix() for path in others}
    assert {"release/main_publish.py", "payload/bench.py", "build/baselines.py"} <= names
    assert {"data/knowledge/other_wheel_sizes.toml", "data/knowledge/baselines.toml"} <= names
    for path in others:
        with path.open("a", encoding="utf-8") as text:
            text.write("\nX = 1\n")
    main_verify.main(ctx)
    assert len(reader.read_files) == 1


def test_the_fingerprint_contains_every_module_that_is_loaded() -> None:
    # Python lists all modules that are loaded while a wheel is read and checked.
    program = (
        "import sys, runpy; sys.argv = ['library']\n"
        "import sessions.verify.reader, sessions.verify.run_checks, sessions.verify.library\n"
        "for n, m in sys.modules.items():\n"
        "    n.startswith('sessions.') and print(m.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program],
        cwd=fakes.ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    loaded = {Path(name) for name in done.stdout.splitlines()}
    assert SESSIONS / "verify" / "library.py" in loaded
    assert loaded <= set(checks_digest.files())


@pytest.mark.parametrize(
    ("value", "fields"),
    [("spec", checks_digest.WORDS), ("record", checks_digest.VOLATILE)],
)
def test_no_check_reads_a_field_that_the_fingerprint_leaves_out(
    value: str, fields: tuple[str, ...]
) -> None:
    read = {
        node.attr
        for path in (SESSIONS / "verify").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (value, f"case.{value}")
    }
    assert read & {"archs", "sha256"}  # else nothing was found
    assert read & set(fields) == set()


def test_the_time_of_a_build_is_not_in_the_fingerprint() -> None:
    slow = fakes.wheel(steps=1, wall_seconds=1.0, cpu_seconds=None, cache={}, timing={})
    assert checks_digest.fingerprint(fakes.spec(), slow) == checks_digest.fingerprint(
        fakes.spec(), fakes.wheel()
    )
    other = fakes.wheel(sbom="c" * 64)
    assert checks_digest.fingerprint(fakes.spec(), other) != checks_digest.fingerprint(
        fakes.spec(), fakes.wheel()
    )


def test_a_wheel_is_read_again_if_the_loader_has_changed(ctx: Context, rules: Path) -> None:
    main_verify.main(ctx)
    with (rules / "build" / "overlay" / import_hooks.LOADER).open("a", encoding="utf-8") as text:
        text.write("# a change\n")
    with raises("verify-failed"):
        main_verify.main(ctx)


def test_a_wheel_that_fails_has_an_error_and_a_report_that_no_session_reads(
    ctx: Context, reader: Reader, capsys: Output
) -> None:
    reader.planted = {"purelib": True, "size": 31_000_000}
    with raises("verify-failed") as caught:
        main_verify.main(ctx)
    assert caught.value.what == (
        f"{NAME} fails 2 of 19 checks for the target rtx50: metadata, size."
    )
    assert str(ctx.record("facts")) in caught.value.evidence
    assert "under each failed check" in caught.value.remedy
    output = capsys.readouterr().out
    assert "nox -s wheel -- --target rtx50 --fresh" in output
    assert "Root-Is-Purelib is not false" in output
    assert "31.0 MB, and the target allows 30" in output
    assert "checks passed" not in output
    assert report(ctx) is None
    # The files exist for people and other programs.
    assert json.loads(ctx.record("verify").read_text(encoding="utf-8"))["ok"] is False
    assert statuses(ctx.build)["metadata"] == "fail"
    assert records.read(ctx.record("facts"), "facts", WheelFacts) is not None


def test_a_wheel_that_failed_is_read_again(ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    build(ctx, b"a worse wheel")
    reader.planted = {"purelib": True}
    for _ in range(2):
        with raises("verify-failed"):
            main_verify.main(ctx)
        assert report(ctx) is None
    assert len(reader.read_files) == 3
    reader.planted = {}
    main_verify.main(ctx)
    assert report(ctx) is not None


def test_without_a_wheel_the_remedy_names_the_session_that_builds_it(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_verify.main(verifying(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- --wheel ------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """An external wheel."""
    path = tmp_path / "downloads" / NAME
    path.parent.mkdir()
    path.write_bytes(b"a wheel of others")
    return path


def left(ctx: Context, given: Path) -> Path:
    """The folder with the records of an external wheel."""
    return ctx.build / "given" / f"{given.stem}-{records.file_sha256(given)[:8]}"


NO_RECORD = {"freshness": "warn", "reproducible": "warn"}


@pytest.mark.parametrize(
    ("changes", "not_ok"),
    [
        (None, NO_RECORD),
        ({}, {}),
        ({"file": "llama_cpp_python-0.3.15-py3-none-any.whl"}, NO_RECORD),
        ({"sha256": "0" * 64}, {"freshness": "fail"}),
    ],
    ids=["no-record", "its-record", "record-of-another-file", "record-of-other-bytes"],
)
def test_an_external_wheel_is_checked_with_the_record_beside_it(
    changes: dict[str, Any] | None,
    not_ok: dict[str, str],
    given: Path,
    tmp_path: Path,
    capsys: Output,
) -> None:
    if changes is not None:
        fields = {"sha256": records.file_sha256(given), **changes}
        record = fakes.recorded(fakes.wheel_facts(), **fields)
        records.write(given.parent / "wheel.json", "wheel", record)
    ctx = verifying(tmp_path, "--wheel", str(given))
    with raises("verify-failed") if "fail" in not_ok.values() else contextlib.nullcontext():
        main_verify.main(ctx)
    found = statuses(left(ctx, given))
    assert {id_: status for id_, status in found.items() if status != "ok"} == not_ok
    if not_ok == NO_RECORD:
        output = capsys.readouterr().out
        assert "there is no record of what it was made from" in output
        assert "verify: 17 checks passed (warnings: 2) for" in output


def test_an_external_wheel_does_not_change_the_records_of_the_target(
    given: Path, ctx: Context, tmp_path: Path
) -> None:
    main_verify.main(ctx)
    names = ("verify", "facts", "wheel")
    before = {name: ctx.record(name).read_bytes() for name in names}
    handed = verifying(tmp_path, "--wheel", str(given))
    main_verify.main(handed)
    assert {name: ctx.record(name).read_bytes() for name in names} == before
    folder = left(handed, given)
    assert {path.name for path in folder.iterdir()} == {"CACHEDIR.TAG", "facts.json", "verify.json"}
    written = records.read(folder / "verify.json", "verify", VerifyReport)
    assert written is not None
    assert written.sha256 == records.file_sha256(given)


def test_wheels_with_the_same_name_in_two_folders_have_separate_records(
    given: Path, tmp_path: Path, reader: Reader
) -> None:
    other = tmp_path / "elsewhere" / NAME
    other.parent.mkdir()
    other.write_bytes(b"yet another")
    for path in (given, other, given):
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert reader.read_files == [given, other]
    assert statuses(left(verifying(tmp_path), given)) == statuses(left(verifying(tmp_path), other))


@pytest.mark.parametrize("name", ["...whl", "..", "a b\x1b[2Jñ.whl", "x" * 250 + ".whl"])
def test_an_external_wheel_with_any_name_has_a_valid_folder_name(
    name: str, given: Path, tmp_path: Path, reader: Reader
) -> None:
    if sys.platform == "win32" and not name.isprintable():
        pytest.skip("Windows has no files of such a name")
    odd = given.with_name(name) if name != ".." else given.with_name("..whl")
    given.rename(odd)
    ctx = verifying(tmp_path, "--wheel", str(odd))
    main_verify.main(ctx)
    (folder,) = (ctx.build / "given").iterdir()
    assert (folder / "verify.json").is_file()
    assert folder.name.isascii()
    assert len(folder.name) <= 109
    assert not ctx.record("verify").exists()


@pytest.mark.parametrize("kind", ["nothing", "folder"])
def test_a_missing_wheel_is_an_error(kind: str, tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "downloads" / "x.whl"
    if kind == "folder":
        path.mkdir(parents=True)
    with raises("wheel-missing") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert caught.value.what == f"There is no wheel {path}."
    assert "--wheel" in caught.value.remedy
    assert reader.read_files == []


def test_the_path_of_a_wheel_may_begin_with_a_tilde(
    tmp_path: Path, reader: Reader, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(given.parent))
    main_verify.main(verifying(tmp_path, "--wheel", f"~/{NAME}"))
    assert reader.read_files == [given]


def test_a_wheel_of_the_cpu_target_has_only_the_cpu_loader(tmp_path: Path, reader: Reader) -> None:
    ctx = verifying(tmp_path, spec=fakes.cpu_spec(budget_mb=4))
    build(ctx)
    digest = records.file_sha256(ctx.wheels / NAME)
    cpu = fakes.cpu_facts(sha256=digest, loader=loader(cuda=None))
    records.write(ctx.record("wheel"), "wheel", fakes.recorded(cpu))
    reader.planted = {f.name: getattr(cpu, f.name) for f in dataclasses.fields(cpu)}
    main_verify.main(ctx)
    assert set(statuses(ctx.build).values()) == {"ok"}


# ---- Files beside a wheel, and exceptions -------------------------------------------------------


@pytest.mark.parametrize(
    "beside",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b" " * (main_verify.RECORD + 1)),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text('{"sha256": NaN}'),
        lambda path: path.symlink_to("/dev/zero"),
    ],
    ids=["fifo", "folder", "objects", "lists", "large", "no-text", "nan", "endless"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fifo")
def test_an_invalid_record_beside_a_wheel_is_ignored(
    beside: Callable[[Path], None], given: Path, tmp_path: Path
) -> None:
    beside(given.parent / "wheel.json")
    start = time.monotonic()
    main_verify.main(verifying(tmp_path, "--wheel", str(given)))
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_wheel_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.whl")
    path.write_bytes(b"a wheel")
    with raises("verify-name") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert (caught.value.id, caught.value.code) == ("verify-name", USAGE)


def test_a_wheel_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_verify, "LARGEST", 1 << 20)  # bytes; the real limit is gigabytes
    path = tmp_path / NAME
    path.write_bytes(bytes((1 << 20) + 1))
    with raises("verify-size") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert (caught.value.id, caught.value.code) == ("verify-size", USAGE)


def test_exceptions_of_readers_and_checks_are_logged(
    ctx: Context, reader: Reader, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(_: object) -> None:
        raise ZeroDivisionError("planted")

    log = ctx.build / "verify-errors.log"
    reader.planted = {"tracebacks": {"RECORD": "a traceback"}}
    with monkeypatch.context() as patch:
        patch.setattr("sessions.verify.run_checks.checks_file.size", size)
        with raises("verify-failed"):
            main_verify.main(ctx)
    assert str(log) in capsys.readouterr().out
    text = log.read_text(encoding="utf-8")
    assert "a traceback" in text
    assert "ZeroDivisionError: planted" in text
    # A run without exceptions deletes the log.
    reader.planted = {}
    main_verify.main(ctx)
    assert not log.exists()
