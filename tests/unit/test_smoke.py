"""The session smoke: a run here, imported reports and their signatures, and the records."""

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
    check_smoke_report,
    main_smoke,
    payload_process,
    report_matches_wheel,
    signed_report,
    smoke_input,
)
from sessions.run.record_types import SmokeReport
from sessions.shared import disk, knowledge, records
from sessions.shared.context import Context
from sessions.shared.errors import USAGE
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

NAME = fakes.wheel().file
GPU = "NVIDIA GeForce RTX 5090"
CPU = {"device": "cpu", "capability": None, "driver": None}
Output = pytest.CaptureFixture[str]
context = functools.partial(fakes.on_gpu, "smoke")


def write_report(root: Path, digest: str, **changes: Any) -> str:
    """Write a report of another machine; returns its path."""
    path = root / "smoke-report.json"
    text = report_file.text(fakes.smoke_report(sha256=digest, **changes))
    path.write_text(text, encoding="utf-8")
    return str(path)


def importing(root: Path, **changes: Any) -> Context:
    """The context of an import: a built wheel, and a report about it with these changes."""
    digest = fakes.built(context(root))
    return context(root, "--report", write_report(root, digest, **changes))


def recorded(ctx: Context, place: str = "12.0") -> dict[str, Any]:
    """The content of the record, whether it is ok or not."""
    path = check_smoke_report.record(ctx.build, place)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def read(path: Path) -> SmokeReport | None:
    """The record as a later session reads it."""
    return records.read(path, "smoke", SmokeReport)


# ---- importing a report --------------------------------------------------------------------------


def test_a_good_report_is_imported_without_a_gpu(tmp_path: Path, capsys: Output) -> None:
    ctx = dataclasses.replace(importing(tmp_path), machine=fakes.no_machine)
    main_smoke.main(ctx)
    found = read(check_smoke_report.record(ctx.build, "12.0"))
    assert found is not None
    assert (found.origin, found.device) == ("smoke-report.json", GPU)
    assert recorded(ctx)["ok"] is True
    output = capsys.readouterr().out
    assert "known-answers: 16 cases of 1 types within their bounds" in output
    assert "times: import seconds 0.5, prompt per second 5e+03" in output
    assert f"smoke: 20 checks with 400 cases passed on {GPU} (12.0), in 1 min 2 s" in output


def case(nmse: float, bound: float, **changes: Any) -> dict[str, Any]:
    base = {"type": "Q4_K", "batch": 4, "flash": True, "kv": "f16", "finite": True}
    return {**base, "tokens": 1, "equal": 1, "nmse": nmse, "bound": bound, **changes}


def test_the_case_closest_to_its_bound_is_shown_for_each_type(
    tmp_path: Path, capsys: Output
) -> None:
    cases = [
        case(1e-3, 5e-3),
        case(2e-3, 3e-2, kv="q4_0"),  # larger, but further from its bound
        case(3e-5, 1e-4, type="F16", batch=512),
        *(case(nmse, 1.0, type="Q6_K", batch=n) for n, nmse in enumerate([0.1, float("nan"), 0.2])),
        {"type": "IQ1_M", "error": "a crash"},
    ]
    with raises("smoke-failed"):
        main_smoke.main(importing(tmp_path, cases=cases))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Q4_K", "1.0e-03", "5e-03", "4", "f16"] in rows
    assert ["F16", "3.0e-05", "1e-04", "512", "f16"] in rows
    assert ["Q6_K", "nan", "1e+00", "1", "f16"] in rows
    assert not any(row[:1] == ["IQ1_M"] for row in rows)


def test_a_report_of_the_cpu_is_not_enough_for_a_release(tmp_path: Path, capsys: Output) -> None:
    ctx = importing(tmp_path, **CPU)
    main_smoke.main(ctx)
    output = capsys.readouterr().out
    assert "Known answers on the CPU" in output
    assert "passed on the CPU, in" in output
    assert GPU not in output
    assert recorded(ctx, "cpu")["ok"] is False


WITHOUT_SASS = [check for check in fakes.smoke_checks() if check["id"] != "native-sass"]


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({"checks": fakes.smoke_checks("memory")}, ""),
        ({"checks": WITHOUT_SASS}, ""),
        ({"checks": []}, ""),
        ({"cases": fakes.smoke_cases(NAME)[:1]}, "F32: 15 of 16 cases are missing"),
    ],
    ids=["failed-check", "missing-check", "no-checks", "one-case"],
)
def test_a_report_that_fails_replaces_the_record_and_is_not_ok(
    changes: dict[str, Any], evidence: str, tmp_path: Path
) -> None:
    main_smoke.main(importing(tmp_path))
    ctx = importing(tmp_path, **changes)
    with raises("smoke-failed") as caught:
        main_smoke.main(ctx)
    assert evidence in caught.value.evidence
    assert recorded(ctx)["ok"] is False
    assert read(check_smoke_report.record(ctx.build, "12.0")) is None  # no session uses it


def test_failed_checks_are_shown_with_their_fix(tmp_path: Path, capsys: Output) -> None:
    ctx = importing(tmp_path, checks=fakes.smoke_checks("state", "grammar"))
    with raises("smoke-failed") as caught:
        main_smoke.main(ctx)
    assert caught.value.what == f"Checks fail or are missing on {GPU} (12.0): grammar, state."
    assert str(check_smoke_report.record(ctx.build, "12.0")) in caught.value.evidence
    failed = [c["id"] for c in recorded(ctx)["smoke"]["checks"] if c["status"] == "fail"]
    assert failed == ["grammar", "state"]
    output = capsys.readouterr().out
    assert "what was found" in output
    assert "fix: what fixes it" in output
    assert "checks with" not in output


def test_each_compute_capability_has_its_own_record(tmp_path: Path) -> None:
    ctx = importing(tmp_path)
    main_smoke.main(ctx)
    before = {path.name: path.read_bytes() for path in ctx.build.glob("smoke-*12.0*")}
    assert sorted(before) == ["smoke-12.0.json", "smoke-report-12.0.json"]
    main_smoke.main(importing(tmp_path, device="NVIDIA H200", capability="9.0"))
    main_smoke.main(importing(tmp_path, **CPU))
    assert check_smoke_report.places(ctx.build) == ("9.0", "12.0", "cpu")
    assert {path.name: path.read_bytes() for path in ctx.build.glob("smoke-*12.0*")} == before
    assert recorded(ctx, "9.0")["smoke"]["device"] == "NVIDIA H200"


def unreadable(path: Path, kind: str, limit: int) -> Path:
    """A path that is not a text file of at most ``limit`` bytes; it skips what is missing here."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        if sys.platform == "win32":
            pytest.skip("Windows has no fifo")
        os.mkfifo(path)
    elif kind == "device":
        if not Path("/dev/zero").exists():
            pytest.skip("no /dev/zero here")
        return Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b" " * (limit + 1))
    elif kind == "not-utf-8":
        path.write_bytes(b"\xff\xd8\xff\xe0")
    return path


@pytest.mark.parametrize("session", ["smoke", "bench"])
@pytest.mark.parametrize("kind", ["missing", "fifo", "device", "folder", "large", "not-utf-8"])
def test_only_a_text_file_of_limited_size_is_read_as_a_report(
    kind: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_report, "LARGEST", 100)
    with raises("report-unreadable") as caught:
        signed_report.read(unreadable(tmp_path / "report.json", kind, 100), session)
    assert caught.value.code == USAGE
    assert "python smoke-….pyz" in caught.value.remedy
    assert f"nox -s {session} -- --report FILE" in caught.value.remedy


def test_a_report_of_the_largest_size_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_report, "LARGEST", 100)
    (tmp_path / "report.json").write_bytes(b" " * 100)
    assert signed_report.read(tmp_path / "report.json", "smoke") == b" " * 100


@pytest.mark.parametrize("changed", ["report", "wheel"])
def test_a_report_about_another_wheel_is_refused(changed: str, tmp_path: Path) -> None:
    """The file of the wheel is compared, not its record."""
    ctx = importing(tmp_path)
    if changed == "report":
        write_report(tmp_path, "1" * 64)
    else:
        (ctx.wheels / NAME).write_bytes(b"swapped")
    with raises("smoke-report-other-wheel") as caught:
        main_smoke.main(ctx)
    assert caught.value.remedy == report_matches_wheel.again("smoke", ctx.spec, None)
    assert not check_smoke_report.record(ctx.build, "12.0").exists()


def test_without_a_wheel_the_command_that_builds_it_is_the_remedy(tmp_path: Path) -> None:
    with raises("record-missing") as caught:
        main_smoke.main(context(tmp_path))
    assert caught.value.remedy == "nox -s wheel -- --target rtx50"


# ---- signatures ----------------------------------------------------------------------------------


class Keys:
    """Replaces ssh-keygen."""

    def __init__(self) -> None:
        self.known = Finished((), 0, "ana@example.com\n", 0.0)
        self.good = Finished((), 0, 'Good "blackwheel" signature for ana@example.com', 0.0)
        self.commands: list[list[str]] = []
        self.stdin: list[bytes | None] = []
        self.signatures: list[bytes] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str], stdin: Path | None = None
    ) -> Finished:
        self.commands.append(list(command))
        self.stdin.append(stdin.read_bytes() if stdin else None)
        self.signatures.append(Path(command[command.index("-s") + 1]).read_bytes())
        self.meanwhile()
        return self.known if "find-principals" in command else self.good


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    fake = Keys()
    monkeypatch.setattr("sessions.shared.programs.capture", fake)
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    return fake


def signed(root: Path) -> Context:
    """The context of an import with --signers; the signature is beside the report."""
    ctx = importing(root)
    (root / "smoke-report.json.sig").write_bytes(b"a signature\n")
    return context(root, "--report", str(ctx.options.report), "--signers", str(root / "signers"))


def test_a_signed_report_is_imported_with_its_signature(
    tmp_path: Path, keys: Keys, capsys: Output
) -> None:
    """The files are read once: here they change while they are checked."""
    ctx = signed(tmp_path)
    report = tmp_path / "smoke-report.json"
    genuine = report.read_bytes()

    def exchange() -> None:
        report.write_bytes(b"forged")
        report.with_name("smoke-report.json.sig").write_bytes(b"another")

    keys.meanwhile = exchange
    main_smoke.main(ctx)
    assert recorded(ctx)["ok"] is True
    assert "Signed by ana@example.com" in capsys.readouterr().out
    found, verified = keys.commands
    copied = found[found.index("-s") + 1]
    files = ["-s", copied, "-f", str(tmp_path / "signers")]
    assert found == ["/usr/bin/ssh-keygen", "-Y", "find-principals", *files]
    namespace = ["-n", "blackwheel", "-I", "ana@example.com"]
    assert verified == ["/usr/bin/ssh-keygen", "-Y", "verify", *files, *namespace]
    assert keys.stdin == [None, genuine]
    assert keys.signatures == [b"a signature\n"] * 2
    assert not Path(copied).exists()
    kept = check_smoke_report.report_path(ctx.build, "12.0")
    assert kept.read_bytes() == genuine
    assert kept.with_name(f"{kept.name}.sig").read_bytes() == b"a signature\n"
    # Without --signers, the signature of the earlier report is deleted.
    main_smoke.main(importing(tmp_path))
    assert not kept.with_name(f"{kept.name}.sig").exists()


@pytest.mark.parametrize("kind", ["missing", "fifo", "large", "not-utf-8"])
def test_only_a_text_file_of_limited_size_is_read_as_a_signature(
    kind: str, tmp_path: Path, keys: Keys
) -> None:
    ctx = signed(tmp_path)
    unreadable(tmp_path / "smoke-report.json.sig", kind, signed_report.LARGEST_SIGNATURE)
    with raises("report-signature-invalid"):
        main_smoke.main(ctx)
    assert keys.commands == []


def test_a_tilde_in_the_paths_is_expanded(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    signed(tmp_path)
    main_smoke.main(context(tmp_path, "--report=~/smoke-report.json", "--signers=~/signers"))
    assert keys.stdin[1] == (tmp_path / "smoke-report.json").read_bytes()
    assert keys.commands[1][5:7] == ["-f", str(tmp_path / "signers")]


GOOD = Keys().good


@pytest.mark.parametrize(
    ("known", "good", "evidence"),
    [
        (Finished((), 255, "No principal matched.", 0.0), GOOD, "No principal matched."),
        (None, Finished((), 255, "Signature verification failed", 0.0), "verification failed"),
        (Finished((), 255, "Couldn't read signature", 0.0), GOOD, "Couldn't read signature"),
        (Finished((), 255, "", 0.0), GOOD, ""),
    ],
    ids=["other-key", "wrong-signature", "no-signature", "unknown-key"],
)
def test_a_report_that_none_of_the_keys_signed_is_refused(
    known: Finished | None, good: Finished, evidence: str, tmp_path: Path, keys: Keys
) -> None:
    keys.known, keys.good = known or keys.known, good
    ctx = signed(tmp_path)
    with raises("report-signature-invalid") as caught:
        main_smoke.main(ctx)
    assert evidence in caught.value.evidence
    assert "ssh-keygen -Y sign -n blackwheel" in caught.value.remedy
    assert not check_smoke_report.record(ctx.build, "12.0").exists()


def test_without_ssh_keygen_no_signature_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    ctx = signed(tmp_path)
    with raises("ssh-keygen-missing") as caught:
        main_smoke.main(ctx)
    assert "OpenSSH" in caught.value.remedy
    assert not check_smoke_report.record(ctx.build, "12.0").exists()


# ---- a run here ----------------------------------------------------------------------------------


class Runner:
    """Replaces the venv, pip in it, and the payload that writes a report."""

    def __init__(self) -> None:
        self.pip: list[list[str]] = []
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
        if command[-2:] != ["config", "list"]:
            self.pip.append(list(command))
        return Finished((), 0, "", 0.0)

    def stream(self, command: Sequence[str], *, env: Mapping[str, str], **how: Any) -> Finished:
        self.command, self.env, self.cwd = list(command), env, how["cwd"]
        self.job = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        for line in ("a line of Python", '@{"done":1,"total":9,"now":"device","left":null}'):
            how["log"].write(line + "\n")
            how["on_line"](line)
        if self.writes:
            report = fakes.smoke_report(**{**self.job["identity"], **self.changes})
            Path(command[-1]).write_text(report_file.text(report), encoding="utf-8")
        return Finished((), self.code, "", 0.0)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Runner:
    fake = Runner()
    monkeypatch.setattr("sessions.shared.programs.capture", fake.capture)
    monkeypatch.setattr("sessions.shared.programs.stream", fake.stream)
    return fake


def running(root: Path, *words: str, **changes: Any) -> Context:
    """The context of a run with a built wheel."""
    ctx = context(root, *words, **changes)
    fakes.built(ctx)
    return ctx


def test_a_wheel_is_tested_on_the_gpu_of_its_target(
    tmp_path: Path, runner: Runner, capsys: Output
) -> None:
    gpus = fakes.nvml(fakes.nvml_gpu(compute_capability="8.9"), fakes.nvml_gpu(index=1))
    # Also if another session requires smoke.
    ctx = running(tmp_path, machine=lambda *_: gpus, asked=frozenset({"release"}))
    main_smoke.main(ctx)
    found = read(check_smoke_report.record(ctx.build, "12.0"))
    assert found is not None
    digest = records.file_sha256(ctx.wheels / NAME)
    assert (found.origin, found.sha256, found.device) == ("here", digest, GPU)
    output = capsys.readouterr().out
    assert f"Installing {NAME} into a fresh venv of Python 3.11.2" in output
    assert f"passed on {GPU} (12.0)" in output
    expected = {"index": 1, "layers": 999, "jobs": 4, "version": "0.3.16"}
    expected |= {"capabilities": ["12.0"], "model": None}
    assert {name: runner.job[name] for name in expected} == expected
    assert runner.job["identity"] == {
        "file": NAME,
        "sha256": digest,
        "target": "rtx50",
        "device": GPU,
        "capability": "12.0",
        "driver": "580.159.04",
    }


@pytest.mark.parametrize("cpu_wheel", [False, True])
def test_a_gpu_wheel_on_the_cpu_gives_a_warning(
    cpu_wheel: bool, tmp_path: Path, runner: Runner, capsys: Output
) -> None:
    ctx = context(tmp_path, "--device", "cpu", machine=fakes.no_machine)
    if cpu_wheel:
        ctx = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, cuda=None, archs=()))
    fakes.built(ctx)
    main_smoke.main(ctx)
    assert (runner.job["index"], runner.job["layers"]) == (0, 0)
    assert runner.job["jobs"] >= 1
    assert {name: runner.job["identity"][name] for name in CPU} == CPU
    output = capsys.readouterr().out
    warning = "warning: the wheel runs on the CPU, and its GPU code is not tested"
    assert (warning in output) is not cpu_wheel
    assert "passed on the CPU" in output


def test_the_wheel_is_installed_into_a_fresh_venv(tmp_path: Path, runner: Runner) -> None:
    env = {"HOME": "/home/user", "PATH": "/usr/bin", "LD_LIBRARY_PATH": "/x", "CUDA_PATH": "/y"}
    ctx = running(tmp_path, env=env)
    venv = ctx.build / "smoke" / "venv"
    disk.mark(ctx.build / "smoke")
    venv.mkdir()
    (venv / "stale.py").write_text("")
    main_smoke.main(ctx)
    assert not (venv / "stale.py").exists()
    wheel, needs = ([*command[7:]] for command in runner.pip)
    assert wheel == ["install", str(ctx.wheels / NAME)]  # with its requirements, as for a user
    assert needs[:3] == ["install", "--no-deps", "--require-hashes"]
    assert Path(needs[-1]).name == "payload.txt"
    assert "gguf==" in Path(needs[-1]).read_text(encoding="utf-8")
    assert Path(runner.command[0]).is_relative_to(venv)
    assert runner.command[1:3] == ["-I", str(smoke_input.PAYLOAD)]
    assert runner.env == {"HOME": "/home/user"}
    assert runner.cwd == ctx.build / "smoke" / "run" == Path(runner.job["folder"])
    assert runner.job["venv"] == str(venv)


def test_a_folder_without_our_mark_is_not_deleted(tmp_path: Path, runner: Runner) -> None:
    ctx = running(tmp_path)
    (ctx.build / "smoke").mkdir()
    with raises("folder-without-mark"):
        main_smoke.main(ctx)


def test_failed_checks_of_a_run_are_recorded(tmp_path: Path, runner: Runner) -> None:
    runner.changes = {"checks": fakes.smoke_checks("known-answers")}
    ctx = running(tmp_path)
    with raises("smoke-failed"):
        main_smoke.main(ctx)
    assert recorded(ctx)["ok"] is False


@pytest.mark.parametrize(("code", "writes"), [(1, False), (1, True), (0, False)])
def test_a_payload_that_fails_is_a_problem_with_its_output(
    code: int, writes: bool, tmp_path: Path, runner: Runner
) -> None:
    runner.code, runner.writes = code, writes
    ctx = running(tmp_path)
    with raises("smoke-no-report") as caught:
        main_smoke.main(ctx)
    assert "a line of Python" in caught.value.evidence
    assert "smoke.log" in caught.value.remedy
    assert not check_smoke_report.record(ctx.build, "12.0").exists()


def test_the_report_of_an_earlier_run_is_not_used(tmp_path: Path, runner: Runner) -> None:
    """The session ops keeps the folder of an earlier run."""
    (tmp_path / "job.json").write_text(json.dumps({"identity": {}}), encoding="utf-8")
    assert payload_process.report(tmp_path / "venv", "ops", tmp_path, {}, "cases")
    runner.writes = False
    with raises("ops-no-report"):
        payload_process.report(tmp_path / "venv", "ops", tmp_path, {}, "cases")


def test_a_python_without_venv_is_a_problem(tmp_path: Path, runner: Runner) -> None:
    runner.venv = Finished((), 1, "No module named ensurepip", 0.0)
    with raises("venv-failed") as caught:
        main_smoke.main(running(tmp_path))
    assert "ensurepip" in caught.value.evidence


@pytest.mark.parametrize(
    ("words", "nvml", "id_", "remedy"),
    [
        ((), {"error": "gone"}, "gpu-not-usable", "nox -s bundle"),
        (("--model", "gone.gguf"), fakes.nvml(), "model-missing", "--model"),
        (("--wheel", "gone.whl"), fakes.nvml(), "wheel-missing", "nox -s smoke -- --wheel"),
        (("--wheel", "."), fakes.nvml(), "wheel-missing", "nox -s smoke -- --wheel"),
    ],
    ids=["gpu", "model", "wheel", "folder"],
)
def test_what_is_missing_is_refused_before_anything_is_installed(
    words: tuple[str, ...],
    nvml: dict[str, Any],
    id_: str,
    remedy: str,
    tmp_path: Path,
    runner: Runner,
) -> None:
    ctx = running(tmp_path, *words, machine=lambda *_: nvml)
    with raises(id_) as caught:
        main_smoke.main(ctx)
    assert remedy in caught.value.remedy
    assert runner.pip == []
    assert not (ctx.build / "smoke").exists()


def test_the_job_has_the_real_model_and_its_questions(tmp_path: Path, runner: Runner) -> None:
    model = tmp_path / "real.gguf"
    model.write_bytes(b"GGUF")
    main_smoke.main(running(tmp_path, "--model", str(model)))
    assert runner.job["model"] == str(model.resolve())
    assert runner.job["questions"] == [list(pair) for pair in smoke_input.QUESTIONS]


# ---- --wheel -------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A wheel that was not built here."""
    path = tmp_path / "downloads" / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    path.parent.mkdir()
    path.write_bytes(b"a wheel of others")
    return path


def test_a_given_wheel_has_its_own_record(given: Path, tmp_path: Path, runner: Runner) -> None:
    """It needs no record of a build. Another wheel of the same name has another record."""
    ctx = context(tmp_path, "--wheel", str(given))
    records.write(ctx.record("probe"), "probe", fakes.chain())
    for content in (b"a wheel of others", b"another wheel of others"):
        given.write_bytes(content)
        main_smoke.main(ctx)
        digest = records.file_sha256(given)
        found = read(ctx.given(given, digest) / "smoke-12.0.json")
        assert found is not None
        assert (found.file, found.sha256) == (given.name, digest)
    assert (runner.job["version"], "NVFP4" in runner.job["needed"]) == ("0.3.36", True)
    assert not check_smoke_report.record(ctx.build, "12.0").exists()


def test_a_report_about_a_given_wheel_is_imported(given: Path, tmp_path: Path) -> None:
    report = write_report(tmp_path, records.file_sha256(given), target="another")
    ctx = context(tmp_path, "--wheel", str(given), "--report", report)
    main_smoke.main(ctx)
    assert (ctx.given(given, records.file_sha256(given)) / "smoke-12.0.json").exists()


# ---- upstream's tokenizer texts ------------------------------------------------------------------


def test_a_report_has_every_field_of_its_record() -> None:
    fields = {field.name for field in dataclasses.fields(SmokeReport)}
    assert fields == set(fakes.smoke_report()) - {"system_info"} | {"origin"}


@pytest.mark.parametrize("state", ["whole", "damaged", "missing", "other-release", "windows"])
def test_the_texts_come_from_the_locked_sdist(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    ctx = context(tmp_path)
    if state == "windows":
        ctx = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, platform="windows"))
    archive = ctx.cache / "downloads" / "small.tar.gz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    models = "llama_cpp_python-0.3.16/vendor/llama.cpp/models"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("ggml-vocab-a.gguf.inp", "templates/b.jinja", "../c/setup.py"):
            tar.addfile(tarfile.TarInfo(f"{models}/{name}"))
    digest = "0" * 64 if state == "damaged" else records.file_sha256(archive)
    known = dataclasses.replace(knowledge.sdists()["0.3.16"], file=archive.name, sha256=digest)
    monkeypatch.setattr(knowledge, "sdists", lambda: {"0.3.16": known})
    if state == "missing":
        archive.unlink()
    version = "0.2.0" if state == "other-release" else "0.3.16+cu131"
    folder = tmp_path / "vectors"
    found = main_smoke._vectors(ctx, version, folder)
    output = "".join(capsys.readouterr())
    assert ("tokenizer texts are not tested" in output) is (state != "whole")
    assert ("not tested on Windows" in output) is (state == "windows")
    assert found == (str(folder) if state == "whole" else None)
    if found:
        assert [path.name for path in folder.iterdir()] == ["ggml-vocab-a.gguf.inp"]


def test_a_checkout_has_upstreams_texts_itself(tmp_path: Path, capsys: Output) -> None:
    ctx = context(tmp_path)
    ctx = dataclasses.replace(ctx, spec=dataclasses.replace(ctx.spec, source=str(tmp_path)))
    folder = tmp_path / "vectors"
    assert main_smoke._vectors(ctx, "0.3.47", folder) is None
    assert "tokenizer texts are not tested" in capsys.readouterr().out
    models = tmp_path / "vendor" / "llama.cpp" / "models"
    models.mkdir(parents=True)
    (models / "ggml-vocab-a.gguf.inp").write_text("")
    assert main_smoke._vectors(ctx, "0.3.47", folder) == str(models)
