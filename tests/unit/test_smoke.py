"""The stage: how a wheel is run here, which reports are taken, and what is left of each."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.payload import report_file
from sessions.run import (
    imported_report,
    main_smoke,
    own_report,
    payload_process,
    smoke_input,
    smoke_results,
)
from sessions.run.model import SmokeReport
from sessions.shared import disk, knowledge, records
from sessions.shared.context import Context
from sessions.shared.errors import USAGE
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
CARD = "NVIDIA GeForce RTX 5090"
Told = pytest.CaptureFixture[str]


smoking = functools.partial(fakes.on_gpu, "smoke")
build = fakes.built


def imported_file(root: Path, digest: str, **changes: Any) -> str:
    """A report that came back from another machine."""
    path = root / "smoke-report.json"
    path.write_text(
        report_file.text(fakes.smoke_report(sha256=digest, **changes)), encoding="utf-8"
    )
    return str(path)


def left(ctx: Context, place: str = "12.0") -> dict[str, Any]:
    """The record, whether its checks hold or not."""
    record: dict[str, Any] = json.loads(
        smoke_results.record(ctx.build, place).read_text(encoding="utf-8")
    )
    return record


# ---- a report of another machine ----------------------------------------------------------------


def test_a_good_report_is_taken_and_its_origin_recorded(tmp_path: Path, capsys: Told) -> None:
    digest = build(smoking(tmp_path))
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest))
    main_smoke.main(ctx)
    found = records.read(smoke_results.record(ctx.build, "12.0"), "smoke", SmokeReport)
    assert found is not None
    assert (found.origin, found.sha256, found.device) == ("smoke-report.json", digest, CARD)
    assert left(ctx)["ok"] is True
    told = capsys.readouterr().out
    assert "known-answers: 16 cases of 1 types within their bounds" in told
    assert "times: import seconds 0.5, prompt per second 5e+03" in told
    assert f"smoke: 20 checks with 400 cases passed on {CARD} (12.0), in 1 min 2 s" in told


def test_to_take_a_report_no_gpu_is_asked_for(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    report = imported_file(tmp_path, digest)
    main_smoke.main(smoking(tmp_path, "--report", report, machine=fakes.no_machine))
    assert (
        records.read(smoke_results.record(smoking(tmp_path).build, "12.0"), "smoke", SmokeReport)
        is not None
    )


def test_of_each_type_the_case_closest_to_its_bound_is_shown(tmp_path: Path, capsys: Told) -> None:
    case = {"type": "Q4_K", "batch": 4, "flash": True, "kv": "f16", "finite": True}
    case |= {"tokens": 1, "equal": 1}
    cases = [
        {**case, "nmse": 1e-3, "bound": 5e-3},
        {**case, "nmse": 2e-3, "bound": 3e-2, "kv": "q4_0"},  # larger, and further from its bound
        {**case, "type": "F16", "nmse": 3e-5, "bound": 1e-4, "batch": 512},
        {"type": "IQ1_M", "error": "a crash"},
    ]
    digest = build(smoking(tmp_path))
    with raises("smoke-failed"):
        main_smoke.main(smoking(tmp_path, "--report", imported_file(tmp_path, digest, cases=cases)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Q4_K", "1.0e-03", "5e-03", "4", "f16"] in rows
    assert ["F16", "3.0e-05", "1e-04", "512", "f16"] in rows
    assert not any(row[:1] == ["IQ1_M"] for row in rows)


def test_a_case_that_is_no_number_is_the_furthest_from_its_bound(
    tmp_path: Path, capsys: Told
) -> None:
    case: dict[str, Any] = {"type": "Q4_K", "flash": True, "kv": "f16", "bound": 1.0}
    case["finite"] = True
    case |= {"tokens": 1, "equal": 1}
    figures = enumerate([0.1, float("nan"), 0.2])
    cases = [{**case, "nmse": nmse, "batch": 4 + n} for n, nmse in figures]
    digest = build(smoking(tmp_path))
    with raises("smoke-failed"):
        main_smoke.main(smoking(tmp_path, "--report", imported_file(tmp_path, digest, cases=cases)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Q4_K", "nan", "1e+00", "5", "f16"] in rows


def test_a_report_of_the_cpu_says_so(tmp_path: Path, capsys: Told) -> None:
    digest = build(smoking(tmp_path))
    report = imported_file(tmp_path, digest, device="cpu", capability=None, driver=None)
    main_smoke.main(smoking(tmp_path, "--report", report))
    told = capsys.readouterr().out
    assert "Known answers on the CPU" in told
    assert "passed on the CPU, in" in told
    assert CARD not in told


def test_a_report_that_fails_is_recorded_as_failing_and_is_a_problem(
    tmp_path: Path, capsys: Told
) -> None:
    digest = build(smoking(tmp_path))
    checks = fakes.smoke_checks("state", "grammar")
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest, checks=checks))
    with raises("smoke-failed") as caught:
        main_smoke.main(ctx)
    assert caught.value.what == f"Checks fail or are missing on {CARD} (12.0): grammar, state."
    assert str(smoke_results.record(ctx.build, "12.0")) in caught.value.evidence
    assert left(ctx)["ok"] is False
    assert [c["id"] for c in left(ctx)["smoke"]["checks"] if c["status"] == "fail"] == [
        "grammar",
        "state",
    ]
    assert (
        records.read(smoke_results.record(ctx.build, "12.0"), "smoke", SmokeReport) is None
    )  # no stage takes it
    told = capsys.readouterr().out
    assert "what was found" in told
    assert "fix: what fixes it" in told
    assert "checks with" not in told


def test_a_report_that_fails_takes_the_place_of_one_that_did_not(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest))
    main_smoke.main(ctx)
    imported_file(tmp_path, digest, checks=fakes.smoke_checks("memory"))
    with raises("smoke-failed"):
        main_smoke.main(ctx)
    assert records.read(smoke_results.record(ctx.build, "12.0"), "smoke", SmokeReport) is None


def test_a_report_that_lacks_a_check_is_not_enough(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    checks = [check for check in fakes.smoke_checks() if check["id"] != "native-sass"]
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest, checks=checks))
    with raises("smoke-failed"):
        main_smoke.main(ctx)


def test_on_the_cpu_a_wheel_for_gpus_is_not_tested_enough_for_a_release(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    report = imported_file(tmp_path, digest, device="cpu", capability=None, driver=None)
    ctx = smoking(tmp_path, "--report", report)
    main_smoke.main(ctx)
    assert left(ctx, "cpu")["ok"] is False


def test_a_run_on_another_gpu_overwrites_nothing(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    first = imported_file(tmp_path, digest)
    ctx = smoking(tmp_path, "--report", first)
    main_smoke.main(ctx)
    before = {path.name: path.read_bytes() for path in ctx.build.glob("smoke-*12.0*")}
    assert sorted(before) == ["smoke-12.0.json", "smoke-report-12.0.json"]
    imported_file(tmp_path, digest, device="NVIDIA H200", capability="9.0")
    main_smoke.main(ctx)
    imported_file(tmp_path, digest, device="cpu", capability=None, driver=None)
    main_smoke.main(ctx)
    assert smoke_results.places(ctx.build) == ("9.0", "12.0", "cpu")
    assert {path.name: path.read_bytes() for path in ctx.build.glob("smoke-*12.0*")} == before
    assert left(ctx, "9.0")["smoke"]["device"] == "NVIDIA H200"


def test_a_report_of_one_answer_is_not_enough(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    cases = fakes.smoke_cases(NAME)[:1]
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest, cases=cases))
    with raises("smoke-failed") as caught:
        main_smoke.main(ctx)
    assert "F32: 15 of 16 cases are missing" in caught.value.evidence
    assert left(ctx)["ok"] is False


@pytest.mark.parametrize("session", ["smoke", "bench"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "not-utf-8"])
def test_what_is_not_a_file_of_text_is_not_waited_for(
    kind: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    if kind == "fifo":
        if sys.platform == "win32":
            pytest.skip("Windows has no fifo")
        os.mkfifo(path)
    elif kind == "device":
        if not Path("/dev/zero").exists():
            pytest.skip("no /dev/zero here")
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        monkeypatch.setattr(imported_report, "LARGEST", 100)
        path.write_bytes(b" " * 101)
    else:
        path.write_bytes(b"\xff")
    with raises("report-unreadable") as caught:
        imported_report.read(path, session)
    assert (caught.value.id, caught.value.code) == ("report-unreadable", USAGE)


def test_a_largest_report_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_report, "LARGEST", 100)
    (tmp_path / "report.json").write_bytes(b" " * 100)
    assert imported_report.read(tmp_path / "report.json", "smoke") == b" " * 100


def test_a_report_in_which_nothing_was_checked_tests_nothing(tmp_path: Path) -> None:
    digest = build(smoking(tmp_path))
    ctx = smoking(tmp_path, "--report", imported_file(tmp_path, digest, checks=[]))
    with raises("smoke-failed"):
        main_smoke.main(ctx)
    assert left(ctx)["ok"] is False


def test_a_report_that_is_not_there_is_named_with_what_writes_one(tmp_path: Path) -> None:
    build(smoking(tmp_path))
    with raises("report-unreadable") as caught:
        main_smoke.main(smoking(tmp_path, "--report", str(tmp_path / "gone.json")))
    assert "python smoke-….pyz" in caught.value.remedy


def test_a_report_that_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    build(smoking(tmp_path))
    (tmp_path / "photo.json").write_bytes(b"\xff\xd8\xff\xe0")
    with raises("report-unreadable"):
        main_smoke.main(smoking(tmp_path, "--report", str(tmp_path / "photo.json")))


def test_a_report_of_another_wheel_is_refused_and_nothing_recorded(tmp_path: Path) -> None:
    ctx = smoking(tmp_path)
    build(ctx)
    report = imported_file(tmp_path, "1" * 64)
    with raises("smoke-report-other-wheel") as caught:
        main_smoke.main(smoking(tmp_path, "--report", report))
    assert caught.value.remedy == own_report.again("smoke", ctx.spec, None)
    assert not smoke_results.record(ctx.build, "12.0").exists()


def test_a_report_is_of_the_wheel_that_lies_there_and_not_of_the_recorded_one(
    tmp_path: Path,
) -> None:
    ctx = smoking(tmp_path)
    digest = build(ctx)
    (ctx.wheels / NAME).write_bytes(b"swapped")
    with raises("smoke-report-other-wheel"):
        main_smoke.main(smoking(tmp_path, "--report", imported_file(tmp_path, digest)))


def test_without_a_wheel_the_session_that_builds_it_is_named(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_smoke.main(smoking(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- signatures ---------------------------------------------------------------------------------


class Keys:
    """Plays ssh-keygen."""

    def __init__(self) -> None:
        self.known = Finished((), 0, "ana@example.com\n", 0.0)
        self.good = Finished((), 0, 'Good "blackwheel" signature for ana@example.com', 0.0)
        self.commands: list[list[str]] = []
        self.given: list[bytes | None] = []
        self.signatures: list[bytes] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str], stdin: Path | None = None
    ) -> Finished:
        self.commands.append(list(command))
        self.given.append(stdin.read_bytes() if stdin else None)
        self.signatures.append(Path(command[command.index("-s") + 1]).read_bytes())
        self.meanwhile()
        return self.known if "find-principals" in command else self.good


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    played = Keys()
    monkeypatch.setattr("sessions.shared.programs.capture", played)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    return played


def signed(root: Path) -> Context:
    digest = build(smoking(root))
    (root / "smoke-report.json.sig").write_bytes(b"a signature\n")
    return smoking(
        root, "--report", imported_file(root, digest), "--signers", str(root / "signers")
    )


def test_a_report_that_one_of_the_keys_signed_is_taken(
    tmp_path: Path, keys: Keys, capsys: Told
) -> None:
    ctx = signed(tmp_path)
    main_smoke.main(ctx)
    assert left(ctx)["ok"] is True
    assert "Signed by ana@example.com" in capsys.readouterr().out
    report = tmp_path / "smoke-report.json"
    asked, verified = keys.commands
    copied = asked[asked.index("-s") + 1]
    files = ["-s", copied, "-f", str(tmp_path / "signers")]
    assert asked == ["/usr/bin/ssh-keygen", "-Y", "find-principals", *files]
    for_us = ["-n", "blackwheel", "-I", "ana@example.com"]
    assert verified == ["/usr/bin/ssh-keygen", "-Y", "verify", *files, *for_us]
    assert keys.given[1] == report.read_bytes()  # what was signed is the report itself
    assert keys.signatures == [b"a signature\n"] * 2
    assert not Path(copied).exists()
    kept = smoke_results.report_path(ctx.build, "12.0")
    assert kept.read_bytes() == report.read_bytes()
    assert kept.with_name(f"{kept.name}.sig").read_text() == "a signature\n"


def test_a_report_that_is_exchanged_while_it_is_checked_is_not_taken(
    tmp_path: Path, keys: Keys
) -> None:
    ctx = signed(tmp_path)
    report = tmp_path / "smoke-report.json"
    genuine = report.read_bytes()

    def exchange() -> None:
        report.write_bytes(b"forged")
        report.with_name("smoke-report.json.sig").write_bytes(b"another")

    keys.meanwhile = exchange
    main_smoke.main(ctx)
    assert keys.given == [None, genuine]
    kept = smoke_results.report_path(ctx.build, "12.0")
    assert kept.read_bytes() == genuine
    assert kept.with_name(f"{kept.name}.sig").read_bytes() == b"a signature\n"


@pytest.mark.parametrize("kind", ["missing", "fifo", "large", "not-utf-8"])
def test_a_signature_that_cannot_be_read_is_not_waited_for(
    kind: str, tmp_path: Path, keys: Keys
) -> None:
    ctx = signed(tmp_path)
    path = tmp_path / "smoke-report.json.sig"
    path.unlink()
    if kind == "fifo":
        if sys.platform == "win32":
            pytest.skip("Windows has no fifo")
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(b" " * (imported_report.LARGEST_SIGNATURE + 1))
    elif kind == "not-utf-8":
        path.write_bytes(b"\xff")
    with raises("report-signature-invalid"):
        main_smoke.main(ctx)
    assert keys.commands == []


def test_the_signature_of_another_report_does_not_stay(tmp_path: Path, keys: Keys) -> None:
    ctx = signed(tmp_path)
    main_smoke.main(ctx)
    main_smoke.main(smoking(tmp_path, "--report", str(tmp_path / "smoke-report.json")))
    assert smoke_results.report_path(ctx.build, "12.0").exists()
    assert not (ctx.build / "smoke-report-12.0.json.sig").exists()


def test_the_home_of_a_report_and_of_its_keys_is_found(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    imported_file(tmp_path, build(smoking(tmp_path)))
    (tmp_path / "smoke-report.json.sig").touch()
    main_smoke.main(smoking(tmp_path, "--report=~/smoke-report.json", "--signers=~/signers"))
    assert keys.given[1] == (tmp_path / "smoke-report.json").read_bytes()
    assert keys.commands[1][5:7] == ["-f", str(tmp_path / "signers")]


@pytest.mark.parametrize(
    ("known", "good", "evidence"),
    [
        (Finished((), 255, "No principal matched.", 0.0), None, "No principal matched."),
        (None, Finished((), 255, "Signature verification failed", 0.0), "verification failed"),
        (Finished((), 255, "Couldn't read signature", 0.0), None, "Couldn't read signature"),
    ],
    ids=["another-key", "wrong-signature", "no-signature"],
)
def test_a_report_that_none_of_the_keys_signed_is_refused(
    known: Finished | None, good: Finished | None, evidence: str, tmp_path: Path, keys: Keys
) -> None:
    keys.known, keys.good = known or keys.known, good or keys.good
    ctx = signed(tmp_path)
    with raises("report-signature-invalid") as caught:
        main_smoke.main(ctx)
    assert evidence in caught.value.evidence
    assert "ssh-keygen -Y sign -n blackwheel" in caught.value.remedy
    assert not smoke_results.record(ctx.build, "12.0").exists()


def test_a_key_that_is_unknown_is_refused_whatever_the_verification_says(
    tmp_path: Path, keys: Keys
) -> None:
    keys.known = Finished((), 255, "", 0.0)
    with raises("report-signature-invalid"):
        main_smoke.main(signed(tmp_path))


def test_without_ssh_keygen_a_signature_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    ctx = signed(tmp_path)
    with raises("ssh-keygen-missing") as caught:
        main_smoke.main(ctx)
    assert "OpenSSH" in caught.value.remedy
    assert not smoke_results.record(ctx.build, "12.0").exists()


# ---- a run here ---------------------------------------------------------------------------------


class Bench:
    """Plays the venv, pip in it, and the payload that writes a report."""

    def __init__(self) -> None:
        self.installed: list[list[str]] = []
        self.command: list[str] = []
        self.env: Mapping[str, str] = {}
        self.cwd: Path | None = None
        self.job: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}
        self.venv = Finished((), 0, "", 0.0)
        self.code = 0
        self.writes = True

    def capture(self, command: Sequence[str], *, env: Mapping[str, str], **_: Any) -> Finished:
        if list(command[1:4]) == ["-I", "-m", "venv"]:
            return self.venv
        if command[-2:] == ["config", "list"]:
            return Finished((), 0, "", 0.0)
        self.installed.append(list(command))
        return Finished((), 0, "", 0.0)

    def stream(self, command: Sequence[str], *, env: Mapping[str, str], **how: Any) -> Finished:
        self.command, self.env, self.cwd = list(command), env, how["cwd"]
        self.job = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        for line in ("a word of Python's own", '@{"done":1,"total":9,"now":"device","left":null}'):
            how["log"].write(line + "\n")
            how["on_line"](line)
        if self.writes:
            said = fakes.smoke_report(**{**self.job["identity"], **self.changes})
            Path(command[-1]).write_text(report_file.text(said), encoding="utf-8")
        return Finished((), self.code, "", 0.0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    played = Bench()
    monkeypatch.setattr("sessions.shared.programs.capture", played.capture)
    monkeypatch.setattr("sessions.shared.programs.stream", played.stream)
    return played


def test_a_wheel_is_tested_on_the_gpu(tmp_path: Path, bench: Bench, capsys: Told) -> None:
    ctx = smoking(tmp_path)
    digest = build(ctx)
    main_smoke.main(ctx)
    found = records.read(smoke_results.record(ctx.build, "12.0"), "smoke", SmokeReport)
    assert found is not None
    assert (found.origin, found.sha256, found.device) == ("here", digest, CARD)
    told = capsys.readouterr().out
    assert f"Installing {NAME} into a fresh venv of Python 3.11.2" in told
    assert f"passed on {CARD} (12.0)" in told


def test_the_payload_is_told_of_the_gpu_and_all_layers_go_there(
    tmp_path: Path, bench: Bench
) -> None:
    second = fakes.nvml(fakes.nvml_gpu(compute_capability="8.9"), fakes.nvml_gpu(index=1))
    ctx = smoking(tmp_path, machine=lambda *_: second)
    digest = build(ctx)
    main_smoke.main(ctx)
    assert (bench.job["index"], bench.job["layers"], bench.job["jobs"]) == (1, 999, 4)
    assert bench.job["version"] == "0.3.16"
    assert bench.job["capabilities"] == ["12.0"]
    assert bench.job["model"] is None
    assert bench.job["identity"] == {
        "file": NAME,
        "sha256": digest,
        "target": "rtx50",
        "device": CARD,
        "capability": "12.0",
        "driver": "580.159.04",
    }


def test_smoke_that_another_session_requires_runs_on_the_gpu_too(
    tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path, asked=frozenset({"release"}))
    build(ctx)
    main_smoke.main(ctx)
    assert bench.job["identity"]["device"] == CARD


def test_on_the_cpu_the_payload_is_told_of_no_gpu(
    tmp_path: Path, bench: Bench, capsys: Told
) -> None:
    ctx = smoking(tmp_path, "--device", "cpu", machine=fakes.no_machine)
    build(ctx)
    main_smoke.main(ctx)
    assert (bench.job["index"], bench.job["layers"]) == (0, 0)
    assert bench.job["jobs"] >= 1
    identity = bench.job["identity"]
    assert (identity["device"], identity["capability"], identity["driver"]) == ("cpu", None, None)
    told = capsys.readouterr().out
    assert "warning: the wheel runs on the CPU, and its GPU code is not tested" in told
    assert "passed on the CPU" in told


def test_for_a_wheel_without_gpu_code_the_cpu_is_no_cause_to_warn(
    tmp_path: Path, bench: Bench, capsys: Told
) -> None:
    ctx = smoking(tmp_path, "--device", "cpu", machine=fakes.no_machine)
    ctx = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, cuda=None, archs=()))
    build(ctx)
    main_smoke.main(ctx)
    told = capsys.readouterr().out
    assert "passed on the CPU" in told
    assert "GPU code is not tested" not in told


def test_the_wheel_goes_into_a_fresh_venv_as_a_users_would(tmp_path: Path, bench: Bench) -> None:
    ctx = smoking(tmp_path)
    build(ctx)
    stale = ctx.build / "smoke" / "venv" / "stale.py"
    disk.mark(ctx.build / "smoke")
    stale.parent.mkdir()
    stale.write_text("")
    main_smoke.main(ctx)
    assert not stale.exists()
    wheel, needs = ([*command[7:]] for command in bench.installed)
    assert wheel == ["install", str(ctx.wheels / NAME)]  # with what it requires, and no more
    assert needs[:3] == ["install", "--no-deps", "--require-hashes"]
    assert Path(needs[-1]).name == "payload.txt"
    assert "gguf==" in Path(needs[-1]).read_text(encoding="utf-8")


def test_a_folder_of_somebody_else_is_not_deleted_for_the_venv(
    tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path)
    build(ctx)
    (ctx.build / "smoke").mkdir()
    with raises("folder-without-mark"):
        main_smoke.main(ctx)


def test_the_payload_runs_in_that_venv_alone(tmp_path: Path, bench: Bench) -> None:
    env = {"HOME": "/home/user", "PATH": "/usr/bin", "LD_LIBRARY_PATH": "/x", "CUDA_PATH": "/y"}
    ctx = smoking(tmp_path, env=env)
    build(ctx)
    main_smoke.main(ctx)
    venv = ctx.build / "smoke" / "venv"
    assert Path(bench.command[0]).is_relative_to(venv)
    assert bench.command[1:3] == ["-I", str(smoke_input.PAYLOAD)]
    assert bench.env == {"HOME": "/home/user"}
    assert bench.cwd == ctx.build / "smoke" / "run" == Path(bench.job["folder"])
    assert bench.job["venv"] == str(venv)


def test_checks_that_fail_here_are_recorded_as_failing(tmp_path: Path, bench: Bench) -> None:
    bench.changes = {"checks": fakes.smoke_checks("known-answers")}
    ctx = smoking(tmp_path)
    build(ctx)
    with raises("smoke-failed"):
        main_smoke.main(ctx)
    assert left(ctx)["ok"] is False


@pytest.mark.parametrize(("code", "writes"), [(1, False), (1, True), (0, False)])
def test_checks_that_end_without_a_report_are_a_problem_with_their_last_words(
    code: int, writes: bool, tmp_path: Path, bench: Bench
) -> None:
    bench.code, bench.writes = code, writes
    ctx = smoking(tmp_path)
    build(ctx)
    with raises("smoke-no-report") as caught:
        main_smoke.main(ctx)
    assert "a word of Python's own" in caught.value.evidence
    assert "smoke.log" in caught.value.remedy
    assert not smoke_results.record(ctx.build, "12.0").exists()


def test_a_report_of_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path, bench: Bench) -> None:
    ctx = smoking(tmp_path)
    build(ctx)
    main_smoke.main(ctx)
    bench.writes = False
    with raises("smoke-no-report"):
        main_smoke.main(ctx)


def test_a_python_without_venv_is_said(tmp_path: Path, bench: Bench) -> None:
    bench.venv = Finished((), 1, "No module named ensurepip", 0.0)
    ctx = smoking(tmp_path)
    build(ctx)
    with raises("venv-failed") as caught:
        main_smoke.main(ctx)
    assert "ensurepip" in caught.value.evidence


def test_without_the_gpu_nothing_is_installed(tmp_path: Path, bench: Bench) -> None:
    ctx = smoking(tmp_path, machine=lambda *_: {"error": "gone"})
    build(ctx)
    with raises("gpu-not-usable") as caught:
        main_smoke.main(ctx)
    assert "nox -s bundle" in caught.value.remedy
    assert bench.installed == []
    assert not (ctx.build / "smoke").exists()


def test_the_report_of_an_earlier_run_in_the_folder_is_not_taken_for_this_ones(
    tmp_path: Path, bench: Bench
) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"identity": {}}), encoding="utf-8")
    assert payload_process.report(tmp_path / "venv", "ops", tmp_path, {}, "cases")
    bench.writes = False
    with raises("ops-no-report"):
        payload_process.report(tmp_path / "venv", "ops", tmp_path, {}, "cases")


def test_a_real_model_is_named_to_the_payload(tmp_path: Path, bench: Bench) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF")
    ctx = smoking(tmp_path, "--model", str(model))
    build(ctx)
    main_smoke.main(ctx)
    assert bench.job["model"] == str(model.resolve())
    assert bench.job["questions"] == [list(pair) for pair in smoke_input.QUESTIONS]


def test_a_real_model_that_is_not_there_is_said_before_anything_is_installed(
    tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path, "--model", str(tmp_path / "gone.gguf"))
    build(ctx)
    with raises("model-missing"):
        main_smoke.main(ctx)
    assert bench.installed == []


# ---- --wheel ------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A wheel that somebody hands us."""
    path = tmp_path / "downloads" / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    path.parent.mkdir()
    path.write_bytes(b"a wheel of others")
    return path


def test_a_given_wheel_is_tested_and_its_record_lies_apart(
    given: Path, tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path, "--wheel", str(given))
    build(ctx)
    main_smoke.main(ctx)
    assert not smoke_results.record(
        ctx.build, "12.0"
    ).exists()  # that is of the wheel that was built here
    record = ctx.given(given, records.file_sha256(given)) / "smoke-12.0.json"
    found = records.read(record, "smoke", SmokeReport)
    assert found is not None
    assert (found.file, found.sha256) == (given.name, records.file_sha256(given))
    assert (bench.job["version"], "NVFP4" in bench.job["needed"]) == ("0.3.36", True)


def test_a_given_wheel_needs_no_record_of_a_build(
    given: Path, tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path, "--wheel", str(given))
    records.write(ctx.record("probe"), "probe", fakes.chain())
    main_smoke.main(ctx)
    assert (ctx.given(given, records.file_sha256(given)) / "smoke-12.0.json").exists()


def test_another_wheel_of_the_same_name_has_a_record_of_its_own(
    given: Path, tmp_path: Path, bench: Bench
) -> None:
    ctx = smoking(tmp_path, "--wheel", str(given))
    records.write(ctx.record("probe"), "probe", fakes.chain())
    main_smoke.main(ctx)
    given.write_bytes(b"another wheel of others")
    main_smoke.main(ctx)
    left = ctx.build.glob("given/*/smoke-12.0.json")
    said = [json.loads(path.read_text(encoding="utf-8"))["smoke"]["sha256"] for path in left]
    assert len(set(said)) == 2


def test_a_report_of_a_given_wheel_is_taken(given: Path, tmp_path: Path) -> None:
    report = imported_file(tmp_path, records.file_sha256(given), target="another")
    ctx = smoking(tmp_path, "--wheel", str(given), "--report", report)
    main_smoke.main(ctx)
    assert (ctx.given(given, records.file_sha256(given)) / "smoke-12.0.json").exists()


def test_a_given_wheel_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with raises("wheel-missing") as caught:
        main_smoke.main(smoking(tmp_path, "--wheel", str(tmp_path / "gone.whl")))
    assert "nox -s smoke -- --wheel" in caught.value.remedy


def test_a_folder_is_no_wheel(tmp_path: Path) -> None:
    with raises("wheel-missing"):
        main_smoke.main(smoking(tmp_path, "--wheel", str(tmp_path)))


def test_a_report_has_every_field_of_its_record(tmp_path: Path) -> None:
    # A field that the record gains must come from somewhere.
    said = set(fakes.smoke_report()) - {"system_info"}
    assert {field.name for field in dataclasses.fields(SmokeReport)} == said | {"origin"}


@pytest.mark.parametrize("state", ["whole", "damaged", "missing"])
def test_upstreams_vocabularies_come_from_the_locked_source(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    ctx = smoking(tmp_path)
    archive = ctx.cache / "downloads" / "small.tar.gz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    models = "llama_cpp_python-0.3.16/vendor/llama.cpp/models"
    with tarfile.open(archive, "w:gz") as tar:
        for name in (
            f"{models}/ggml-vocab-a.gguf.inp",
            f"{models}/templates/b.jinja",
            "c/setup.py",
        ):
            tar.addfile(tarfile.TarInfo(name))
    known = knowledge.sdists()["0.3.16"]
    digest = "0" * 64 if state == "damaged" else records.file_sha256(archive)
    small = dataclasses.replace(known, file=archive.name, sha256=digest)
    monkeypatch.setattr(knowledge, "sdists", lambda: {"0.3.16": small})
    if state == "missing":
        archive.unlink()
    folder = tmp_path / "vectors"
    found = main_smoke._vectors(ctx, "0.3.16+cu131", folder)
    told = capsys.readouterr()
    if state == "whole":
        assert found == str(folder)
        assert [path.name for path in folder.iterdir()] == ["ggml-vocab-a.gguf.inp"]
    else:
        assert found is None
        assert "tokenizer texts are not tested" in told.out + told.err
    assert main_smoke._vectors(ctx, "0.2.0", folder) is None
    capsys.readouterr()
    spec = dataclasses.replace(ctx.spec, platform="windows")
    assert main_smoke._vectors(dataclasses.replace(ctx, spec=spec), "0.3.16", folder) is None
    assert "not tested on Windows" in capsys.readouterr().out


def test_a_checkout_has_upstreams_texts_itself(tmp_path: Path, capsys: Told) -> None:
    ctx = smoking(tmp_path)
    ctx = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, source=str(tmp_path)))
    folder = tmp_path / "vectors"
    assert main_smoke._vectors(ctx, "0.3.47", folder) is None
    assert "tokenizer texts are not tested" in capsys.readouterr().out
    models = tmp_path / "vendor" / "llama.cpp" / "models"
    models.mkdir(parents=True)
    (models / "ggml-vocab-a.gguf.inp").write_text("")
    assert main_smoke._vectors(ctx, "0.3.47", folder) == str(models)
