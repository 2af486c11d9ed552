"""The stage: what it judges, what it leaves, and when it need not read again."""

from __future__ import annotations

import ast
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
from sessions.verify.model import WheelFacts
from sessions.verify.report_model import VerifyReport
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel_facts().file
SESSIONS = fakes.ROOT / "sessions"
Told = pytest.CaptureFixture[str]


def loader(cuda: str | None = "13.1") -> str:
    """The digest of what rtx50's wheel has of ours, or a CPU wheel."""
    texts = {p.name: p.read_text(encoding="utf-8") for p in SESSIONS.glob("build/overlay/*.py")}
    archs = ("120-real",) if cuda else ()
    ours = import_hooks.modules(texts, platform="linux", cuda=cuda, archs=archs)
    filled = import_hooks.loader_text(ours)
    return records.text_sha256(filled.encode())


class Reader:
    """Plays the reading of a wheel: sound facts of the very file, with what is planted."""

    def __init__(self) -> None:
        self.read_files: list[Path] = []
        self.planted: dict[str, Any] = {}
        self.scratch = Path()
        self.env: Mapping[str, str] = {}

    def __call__(
        self,
        wheel: Path,
        scratch: Path,
        env: Mapping[str, str],
        jobs: int,
        progress: Callable[[int, int, str], None],
    ) -> WheelFacts:
        assert scratch.is_dir()
        assert jobs >= 1
        self.read_files.append(wheel)
        self.scratch, self.env = scratch, env
        progress(0, 0, "llama_cpp/lib/libllama.so")
        progress(5 << 20, 5 << 20, "llama_cpp/lib/libggml-cuda.so")
        found = fakes.wheel_facts(
            file=wheel.name, sha256=records.file_sha256(wheel), loader=loader()
        )
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
    """The surroundings of ``nox -s verify -- …`` for the rtx50 target."""
    named: dict[str, Any] = {"session": "verify", "asked": frozenset({"verify"})}
    return fakes.context(root, *words, **{**named, "spec": fakes.claiming(), **changes})


def build(ctx: Context, content: bytes = b"a wheel") -> Path:
    """The target's wheel with the record of its build, as the stage before this leaves them."""
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


def test_a_sound_wheel_passes_and_that_is_said(ctx: Context, capsys: Told) -> None:
    main_verify.main(ctx)
    told = capsys.readouterr().out
    assert f"Reading {NAME}" in told
    assert "Device code\n" in told
    assert "gpu-code: sm_120: 98 × SASS in libggml-cuda.so" in told
    assert f"verify: 19 checks passed for {NAME}, in " in told


def test_a_sound_wheel_leaves_its_verdict_and_all_that_was_found(ctx: Context) -> None:
    main_verify.main(ctx)
    verdict = report(ctx)
    assert verdict is not None
    assert (verdict.file, verdict.target) == (NAME, "rtx50")
    assert verdict.sha256 == records.file_sha256(ctx.wheels / NAME)
    assert [g.name for g in verdict.groups] == [
        "The file",
        "Device code",
        "Host code",
        "Its build",
    ]
    assert {c.status for g in verdict.groups for c in g.checks} == {"ok"}
    found = records.read(ctx.record("facts"), "facts", WheelFacts)
    assert found == fakes.wheel_facts(sha256=verdict.sha256, loader=loader())


def test_what_is_unpacked_is_gone_afterwards(ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    assert reader.scratch.parent == ctx.cache / "tmp"
    assert not reader.scratch.exists()


def test_what_is_unpacked_is_gone_after_a_failure_too(ctx: Context, reader: Reader) -> None:
    reader.planted = {"purelib": True}
    with raises("verify-failed"):
        main_verify.main(ctx)
    assert not reader.scratch.exists()


def test_readers_get_no_more_of_the_environment_than_any_program_needs(
    ctx: Context, reader: Reader
) -> None:
    env = {"HOME": "/home/user", "PATH": "/usr/bin", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/y"}
    main_verify.main(dataclasses.replace(ctx, env=env))
    assert reader.env == {"HOME": "/home/user"}


def test_a_wheel_that_was_judged_is_not_read_again(
    ctx: Context, reader: Reader, capsys: Told
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
def test_fresh_reads_again_when_this_session_was_asked_for(
    asked: set[str], reads: int, tmp_path: Path, reader: Reader
) -> None:
    ctx = verifying(tmp_path, "--fresh", asked=frozenset(asked))
    build(ctx)
    main_verify.main(verifying(tmp_path))
    main_verify.main(ctx)
    assert len(reader.read_files) == reads


def test_a_new_wheel_is_read(ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    build(ctx, b"another wheel")
    main_verify.main(ctx)
    assert len(reader.read_files) == 2


def test_a_wheel_that_was_swapped_after_its_judgement_is_read_and_refused(
    ctx: Context, reader: Reader
) -> None:
    main_verify.main(ctx)
    (ctx.wheels / NAME).write_bytes(b"swapped")
    with raises("verify-failed"):
        main_verify.main(ctx)
    assert len(reader.read_files) == 2


def test_another_record_of_the_same_wheel_is_judged_again(ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    found = fakes.wheel_facts(sha256=records.file_sha256(ctx.wheels / NAME))
    records.write(ctx.record("wheel"), "wheel", fakes.recorded(found, compiler="gnu 13.1.0"))
    main_verify.main(ctx)
    assert len(reader.read_files) == 2


@pytest.mark.parametrize(
    "changes",
    [{"budget_mb": 20}, {"archs": ("120",)}, {"device_features": ()}],
    ids=["budget", "architectures", "features"],
)
def test_a_changed_target_is_judged_again(
    changes: dict[str, Any], ctx: Context, reader: Reader
) -> None:
    main_verify.main(ctx)
    other = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, **changes))
    if changes.get("archs"):
        with raises("verify-failed"):
            main_verify.main(other)
    else:
        main_verify.main(other)
    assert len(reader.read_files) == 2


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's files, by which ``verify`` judges."""
    copy = tmp_path / "sessions"
    shutil.copytree(SESSIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(main_verify, "OVERLAY", copy / "build" / "overlay")
    monkeypatch.setattr(code_digest, "SESSIONS", copy)
    return copy


JUDGES = [
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
    "data/knowledge/wheels.toml",
    "data/knowledge/sdists.toml",
    "data/locks/runtime.txt",
]


def test_a_changed_rule_is_judged_by_again(ctx: Context, reader: Reader, rules: Path) -> None:
    main_verify.main(ctx)
    main_verify.main(ctx)
    assert len(reader.read_files) == 1
    for count, rule in enumerate(JUDGES, 2):
        with (rules / rule).open("a", encoding="utf-8") as text:
            text.write("\nX==1\n" if rule.endswith(".txt") else "\nX = 1\n")
        main_verify.main(ctx)
        assert len(reader.read_files) == count, rule


def test_a_comment_is_no_reason_to_judge_again(ctx: Context, reader: Reader, rules: Path) -> None:
    main_verify.main(ctx)
    for rule in JUDGES:
        text = (rules / rule).read_text(encoding="utf-8")
        if rule.endswith(".py"):
            text = text.replace('"""', '"""Otherwise: ', 1).replace("\n\n\n", "\n\n\n# why\n\n")
        (rules / rule).write_text(f"# a comment\n{text}\n# another\n", encoding="utf-8")
        main_verify.main(ctx)
        assert len(reader.read_files) == 1, rule


def test_what_judges_no_wheel_is_no_reason_to_judge_again(
    ctx: Context, reader: Reader, rules: Path
) -> None:
    main_verify.main(ctx)
    judging = {path.relative_to(rules).as_posix() for path in checks_digest.judging()}
    others = [p for p in rules.rglob("*") if p.suffix in (".py", ".toml", ".txt")]
    others = [path for path in others if path.relative_to(rules).as_posix() not in judging]
    names = {path.relative_to(rules).as_posix() for path in others}
    assert {
        "release/server_listing.py",
        "release/main_publish.py",
        "release/documents/wheel_card.py",
        "payload/bench.py",
    } <= names
    assert {
        "data/knowledge/measured.toml",
        "data/knowledge/baselines.toml",
        "build/baselines.py",
    } <= names
    for path in others:
        with path.open("a", encoding="utf-8") as text:
            text.write("\nX = 1\n")
    main_verify.main(ctx)
    assert len(reader.read_files) == 1


def test_what_is_imported_by_what_judges_judges_too() -> None:
    # Whatever runs while a wheel is read and judged: told by Python itself.
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
    assert loaded <= set(checks_digest.judging())


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


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": "other words", "warning": "mind"},
        {"cache": "none"},
        {"compiler": "/usr/bin/g++", "prerelease": True},
    ],
)
def test_what_no_check_reads_is_no_reason_to_judge_again(
    changes: dict[str, Any], ctx: Context, reader: Reader
) -> None:
    main_verify.main(ctx)
    main_verify.main(dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, **changes)))
    assert len(reader.read_files) == 1


def test_how_long_a_build_took_is_no_reason_to_judge_again() -> None:
    slow = fakes.wheel(steps=1, wall_seconds=1.0, cpu_seconds=None, cache={}, timing={})
    assert checks_digest.verdict(fakes.spec(), slow) == checks_digest.verdict(
        fakes.spec(), fakes.wheel()
    )
    other = fakes.wheel(sbom="c" * 64)
    assert checks_digest.verdict(fakes.spec(), other) != checks_digest.verdict(
        fakes.spec(), fakes.wheel()
    )


def test_a_changed_loader_is_judged_by_again(ctx: Context, rules: Path) -> None:
    main_verify.main(ctx)
    with (rules / "build" / "overlay" / import_hooks.LOADER).open("a", encoding="utf-8") as text:
        text.write("# a change\n")
    with raises("verify-failed"):
        main_verify.main(ctx)


@pytest.mark.parametrize("record", ["", "{}", '{"schema": 1, "ok": true}'])
def test_a_damaged_verdict_is_no_verdict(record: str, ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    ctx.record("verify").write_text(record, encoding="utf-8")
    main_verify.main(ctx)
    assert len(reader.read_files) == 2
    assert report(ctx) is not None


def test_a_wheel_that_fails_is_refused_with_the_checks_named(
    ctx: Context, reader: Reader, capsys: Told
) -> None:
    reader.planted = {"purelib": True, "size": 31_000_000}
    with raises("verify-failed") as caught:
        main_verify.main(ctx)
    assert caught.value.what == (
        f"{NAME} fails 2 of 19 checks for the target rtx50: metadata, size."
    )
    assert str(ctx.record("facts")) in caught.value.evidence
    assert "under each failed check" in caught.value.remedy
    told = capsys.readouterr().out
    assert "nox -s wheel -- --target rtx50 --fresh" in told
    assert "Root-Is-Purelib is not false" in told
    assert "31.0 MB, and the target allows 30" in told
    assert "checks passed" not in told


def test_no_stage_takes_the_verdict_of_a_wheel_that_fails(ctx: Context, reader: Reader) -> None:
    reader.planted = {"purelib": True}
    with raises("verify-failed"):
        main_verify.main(ctx)
    assert report(ctx) is None
    # It is there for people and programs.
    left = json.loads(ctx.record("verify").read_text(encoding="utf-8"))
    assert left["ok"] is False
    assert left["verify"]["groups"][0]["checks"][2]["status"] == "fail"
    assert records.read(ctx.record("facts"), "facts", WheelFacts) is not None


def test_a_wheel_that_failed_is_read_again(ctx: Context, reader: Reader) -> None:
    reader.planted = {"purelib": True}
    for _ in range(2):
        with raises("verify-failed"):
            main_verify.main(ctx)
    assert len(reader.read_files) == 2
    reader.planted = {}
    main_verify.main(ctx)
    assert report(ctx) is not None


def test_a_failure_takes_the_place_of_an_older_verdict(ctx: Context, reader: Reader) -> None:
    main_verify.main(ctx)
    build(ctx, b"a worse wheel")
    reader.planted = {"purelib": True}
    with raises("verify-failed"):
        main_verify.main(ctx)
    assert report(ctx) is None


def test_without_a_wheel_the_session_that_builds_it_is_named(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_verify.main(verifying(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- --wheel ------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A wheel that somebody hands us."""
    path = tmp_path / "downloads" / NAME
    path.parent.mkdir()
    path.write_bytes(b"a wheel of others")
    return path


def test_a_given_wheel_without_a_record_passes_with_warnings(
    given: Path, tmp_path: Path, reader: Reader, capsys: Told
) -> None:
    main_verify.main(verifying(tmp_path, "--wheel", str(given)))
    assert reader.read_files == [given]
    told = capsys.readouterr().out
    assert "freshness: a library is not the one that the recorded build made" in told
    assert "there is no record of what it was made from" in told
    assert "verify: 17 checks passed (warnings: 2) for" in told


def left(ctx: Context, given: Path) -> Path:
    """The folder of what was found of a given wheel."""
    return ctx.build / "given" / f"{given.stem}-{records.file_sha256(given)[:8]}"


def statuses(folder: Path) -> dict[str, str]:
    left = json.loads((folder / "verify.json").read_text(encoding="utf-8"))["verify"]
    return {check["id"]: check["status"] for group in left["groups"] for check in group["checks"]}


def test_a_given_wheel_without_a_record_leaves_its_warnings(given: Path, tmp_path: Path) -> None:
    ctx = verifying(tmp_path, "--wheel", str(given))
    main_verify.main(ctx)
    found = statuses(left(ctx, given))
    warned = {id_ for id_, status in found.items() if status != "ok"}
    assert warned == {"freshness", "reproducible"}


def test_a_given_wheel_is_judged_by_the_record_beside_it(given: Path, tmp_path: Path) -> None:
    made = fakes.recorded(fakes.wheel_facts(sha256=records.file_sha256(given)))
    records.write(given.parent / "wheel.json", "wheel", made)
    ctx = verifying(tmp_path, "--wheel", str(given))
    main_verify.main(ctx)
    assert set(statuses(left(ctx, given)).values()) == {"ok"}


def test_a_given_wheel_that_is_not_what_the_record_beside_it_says_fails(
    given: Path, tmp_path: Path
) -> None:
    records.write(given.parent / "wheel.json", "wheel", fakes.recorded(fakes.wheel_facts()))
    with raises("verify-failed"):
        main_verify.main(verifying(tmp_path, "--wheel", str(given)))


def test_a_record_of_another_file_is_not_the_given_wheels(given: Path, tmp_path: Path) -> None:
    other = fakes.recorded(fakes.wheel_facts(), file="llama_cpp_python-0.3.15-py3-none-any.whl")
    records.write(given.parent / "wheel.json", "wheel", other)
    ctx = verifying(tmp_path, "--wheel", str(given))
    main_verify.main(ctx)
    assert statuses(left(ctx, given))["freshness"] == "warn"


def test_a_given_wheel_needs_nothing_of_the_target_and_changes_nothing_of_it(
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
    verdict = records.read(folder / "verify.json", "verify", VerifyReport)
    assert verdict is not None
    assert verdict.sha256 == records.file_sha256(given)


def test_a_given_wheel_that_was_judged_is_not_read_again(
    given: Path, tmp_path: Path, reader: Reader, capsys: Told
) -> None:
    ctx = verifying(tmp_path, "--wheel", str(given))
    main_verify.main(ctx)
    main_verify.main(ctx)
    assert len(reader.read_files) == 1
    assert "up to date" in capsys.readouterr().out


def test_wheels_of_one_name_in_two_folders_are_not_taken_for_each_other(
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
def test_a_given_wheel_of_any_name_has_a_folder_of_its_own(
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
def test_a_wheel_that_is_not_there_is_told_of(kind: str, tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "downloads" / "x.whl"
    if kind == "folder":
        path.mkdir(parents=True)
    with raises("wheel-missing") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert caught.value.what == f"There is no wheel {path}."
    assert "--wheel" in caught.value.remedy
    assert reader.read_files == []


def test_a_wheel_in_the_users_home_may_be_named_by_a_tilde(
    tmp_path: Path, reader: Reader, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(given.parent))
    main_verify.main(verifying(tmp_path, "--wheel", f"~/{NAME}"))
    assert reader.read_files == [given]


def test_the_cpu_target_wants_the_check_of_the_cpu_and_no_more(
    tmp_path: Path, reader: Reader
) -> None:
    ctx = verifying(tmp_path, spec=fakes.cpu_spec(budget_mb=4))
    build(ctx)
    digest = records.file_sha256(ctx.wheels / NAME)
    cpu = fakes.cpu_facts(sha256=digest, loader=loader(cuda=None))
    records.write(ctx.record("wheel"), "wheel", fakes.recorded(cpu))
    reader.planted = {f.name: getattr(cpu, f.name) for f in dataclasses.fields(cpu)}
    main_verify.main(ctx)
    assert set(statuses(ctx.build).values()) == {"ok"}


def test_a_loader_of_another_cuda_release_is_not_the_targets(ctx: Context, reader: Reader) -> None:
    other = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, cuda="13.2"))
    with raises("verify-failed"):
        main_verify.main(other)


# ---- What is beside a wheel, and errors of our own ----------------------------------------------


def mine(ctx: Context, beside: Callable[[Path], None]) -> Path:
    """A wheel of one's own in a folder, with something beside it."""
    folder = ctx.root / "mine"
    folder.mkdir()
    path = folder / NAME
    path.write_bytes(b"a wheel")
    beside(folder / "wheel.json")
    return path


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
def test_what_is_no_record_beside_a_wheel_counts_as_none(
    beside: Callable[[Path], None], tmp_path: Path
) -> None:
    path = mine(verifying(tmp_path), beside)
    start = time.monotonic()
    main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_wheel_whose_name_is_not_a_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.whl")
    path.write_bytes(b"a wheel")
    with raises("verify-name") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert (caught.value.id, caught.value.code) == ("verify-name", USAGE)


def test_a_wheel_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_verify, "LARGEST", 1 << 20)  # bytes: no test writes gigabytes
    path = tmp_path / NAME
    path.write_bytes(bytes((1 << 20) + 1))
    with raises("verify-size") as caught:
        main_verify.main(verifying(tmp_path, "--wheel", str(path)))
    assert (caught.value.id, caught.value.code) == ("verify-size", USAGE)


def test_what_a_reader_or_a_check_raised_is_logged_and_named(
    ctx: Context, reader: Reader, capsys: Told, monkeypatch: pytest.MonkeyPatch
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
    # It is of this run: one without errors leaves none.
    reader.planted = {}
    main_verify.main(ctx)
    assert not log.exists()
