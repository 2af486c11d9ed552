"""``release``: what it writes into dist/, what it refuses, and what a failure leaves."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.build.record_types import Wheel
from sessions.command_line import child_nox
from sessions.probe import gpu_for_tests
from sessions.release import dist_contents, git_state, main_release
from sessions.release.evidence import Evidence
from sessions.release.index import builder
from sessions.release.record_types import Gate, Release
from sessions.run import check_smoke_report
from sessions.shared import disk, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.shared.programs import Finished
from sessions.verify import checks_digest
from tests import fakes
from tests.evidence import libraries_with
from tests.problems import raises

COMMIT = "4" * 40
NAME = fakes.wheel().file
SMOKE = "smoke-report-12.0.json"
HOPPER = fakes.claiming(target="hopper", archs=("90-real",))
CPU = fakes.cpu_spec(budget_mb=4)
SPECS = {"rtx50": fakes.claiming(), "hopper": HOPPER, "cpu": CPU}
NO_DRIVER = {"error": "NVML Shared Library Not Found"}
Output = pytest.CaptureFixture[str]


def pack(content: str) -> bytes:
    """A wheel with the members that a release reads: METADATA and the SBOM."""
    members = {
        "llama_cpp/__init__.py": content,
        f"{fakes.INFO}/METADATA": "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.16\n"
        "Requires-Python: >=3.8\n",
        f"{fakes.INFO}/sboms/blackwheel.cdx.json": f'{{"of": "{content}"}}\n',
        f"{fakes.INFO}/RECORD": "",
        f"{fakes.INFO}/WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_35_x86_64\n",
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2022, 11, 9, 12, 37, 20)), text)
    return data.getvalue()


@functools.cache
def released(target: str, content: str) -> Evidence:
    """The records of a wheel with this content that may be released."""
    data = pack(content)
    digest = hashlib.sha256(data).hexdigest()
    spec, named = SPECS[target], {"sha256": digest, "size": len(data)}
    if spec is CPU:
        facts = fakes.cpu_facts(**named)
    else:
        code = fakes.device(sass={"sm_90": 98}) if spec is HOPPER else fakes.device()
        facts = fakes.wheel_facts(libraries=libraries_with(code), **named)
    found = fakes.evidence(facts, spec=spec)
    # Nothing was compiled for it, so there is no record of steps.
    wheel = dataclasses.replace(found.wheel, timing={})
    verdict = checks_digest.fingerprint(spec, wheel)
    verify = dataclasses.replace(found.verify, fingerprint=verdict)
    places = gpu_for_tests.capabilities(spec)
    on_gpu = {"device": "A GPU", "capability": places[0] if places else None}
    device = on_gpu if places else {"device": "cpu", "capability": None}
    gone = () if places else fakes.ON_A_GPU
    checks = [check for check in fakes.smoke_checks() if check["id"] not in gone]
    found = fakes.rerun(found, **device, checks=checks)
    ops = (fakes.ops_run(facts, spec, **device),)
    return dataclasses.replace(found, wheel=wheel, verify=verify, ops=ops)


_CALLS: dict[Path, list[tuple[list[str], str, list[str]]]] = {}  # the calls of a stored release


@dataclasses.dataclass
class World:
    """A project with fake child sessions and a fake git; ``calls`` are those of the sessions."""

    root: Path
    kept: Path  # the folder with the projects that ``after`` copies
    monkeypatch: pytest.MonkeyPatch
    calls: list[tuple[list[str], str, list[str]]] = dataclasses.field(default_factory=list)
    codes: dict[str, int] = dataclasses.field(default_factory=dict)  # target -> exit code
    content: str = "one"
    proven: bool = True  # verify leaves a smoke report too
    status: str = ""
    head: tuple[int, str] = (0, COMMIT)
    top: str = ""
    origin: str = "https://example.org/b.git"
    cards: tuple[dict[str, Any], ...] | None = ()
    second: str | None = None  # the content of the wheel of a second build
    tracked: str = "noxfile.py\0"
    plant: Callable[[Evidence], Evidence] = lambda found: found
    inherited: list[list[str]] = dataclasses.field(default_factory=list)

    def follow(
        self,
        root: Path,
        sessions: Sequence[str],
        target: str,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
    ) -> int:
        self.calls.append((list(sessions), target, list(words)))
        spec = SPECS[target]
        code = self.codes.get(target, 0)
        if root != self.root:
            assert (root / "noxfile.py").read_text() == "tracked\n"
            assert not (root / "untracked").exists()
            assert env is not None
            assert env["BLACKWHEEL_CACHE"] == str(self.root / "cache")
            if self.second is not None:
                self.leave(root, spec, self.second, smoke=False)
        elif code == 0:
            self.leave(root, spec, self.content, smoke="smoke" in sessions or self.proven)
        return code

    def leave(self, root: Path, spec: BuildSpec, content: str, *, smoke: bool) -> None:
        """Write the wheel and the records of the sessions."""
        data = pack(content)
        found = self.plant(released(spec.target, content))
        build, wheels = root / "build" / spec.target, root / "wheels" / spec.target
        wheels.mkdir(parents=True, exist_ok=True)
        (wheels / NAME).write_bytes(data)
        fakes.write(wheels / "wheel.json", "wheel", found.wheel)
        fakes.lay(build, found if smoke else dataclasses.replace(found, runs=()))

    def capture(self, command: list[str], *, env: Any, cwd: Path | None = None) -> Finished:
        words = " ".join(command[3:])
        beside = "".join(f"?? {path.name}/\n" for path in sorted(self.root.glob(".dist*")))
        answers = {
            "rev-parse --show-toplevel": (0, self.top or str(self.root)),
            "rev-parse HEAD": self.head,
            "status --porcelain --untracked-files=normal": (0, self.status + beside),
            "ls-files -z": (0, self.tracked),
            "show --no-patch --format=%an%n%cs HEAD": (0, "warning: x\nAna\n2026-11-28\n"),
            "remote get-url origin": (0, f"{self.origin}\n"),
        }
        if command[0] == "git":
            code, text = answers[words]
        else:
            assert command[0].endswith("diffoscope")
            Path(command[2]).write_text("a long text")
            code, text = 1, ""
        return Finished(tuple(command), code, text, 0.0, "warning: cannot set locale")

    def context(self, *words: str) -> Context:
        options = fakes.parsed(*words)
        specs = tuple(SPECS[name] for name in (options.target or "rtx50").split(","))

        def machine(question: str, *_: str) -> Any:
            assert question == "nvml"
            return NO_DRIVER if self.cards is None else fakes.nvml(*self.cards)

        return fakes.context(
            self.root,
            *words,
            session="release",
            asked=frozenset({"release"}),
            spec=specs[0],
            specs=specs,
            machine=machine,
            env={"PATH": "/usr/bin"},
        )

    def release(self, *words: str) -> None:
        main_release.main(self.context(*words))

    def after(self, *words: str) -> None:
        """The state after this release, which is made once for each command line and copied."""
        kept = self.kept / " ".join(words or ("--target", "rtx50"))
        if kept.exists():
            shutil.copytree(kept, self.root, dirs_exist_ok=True)
            self.calls += _CALLS[kept]
        else:
            self.release(*words)
            shutil.copytree(self.root, kept)
            _CALLS[kept] = [*self.calls]

    def refused(self, *words: str) -> Problem:
        with raises("release-not-releasable") as caught:
            self.release(*words)
        return caught.value

    @property
    def dist(self) -> Path:
        return self.root / "dist"

    @property
    def page(self) -> str:
        return (self.dist / "RELEASE.md").read_text(encoding="utf-8")

    def files(self, folder: str = "") -> dict[str, bytes]:
        base = self.dist / folder
        return {
            path.relative_to(base).as_posix(): path.read_bytes()
            for path in sorted(base.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("released")


@pytest.fixture
def world(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    root = tmp_path / "black wheel ñ"
    (root / "build").mkdir(parents=True)
    (root / "noxfile.py").write_text("tracked\n")
    (root / "untracked").write_text("")
    world = World(root, kept, monkeypatch)
    monkeypatch.setattr(child_nox, "follow", world.follow)
    monkeypatch.setattr(programs, "capture", world.capture)
    monkeypatch.setattr(Context, "target_lock", lambda *_: None)
    return world


DOCUMENTS = [
    "SHA256SUMS", "WHEEL.es.md", "WHEEL.md", "facts.json", "gate.json", NAME, f"{NAME}.metadata",
    "ops-12.0.json", "provenance.intoto.json", "release.json", "report.html", "sbom.cdx.json",
    "smoke-12.0.json", "verify.json", "wheel.json",
]  # fmt: skip


def test_a_tested_wheel_is_released_with_all_its_documents(world: World, capsys: Output) -> None:
    world.release()
    assert sorted(p.name for p in (world.dist / "rtx50").iterdir()) == sorted(DOCUMENTS)
    assert world.calls == [(["verify"], "rtx50", [])]
    assert "## rtx50: RELEASE\n" in world.page
    assert (world.dist / "simple" / "llama-cpp-python" / "index.html").exists()
    assert (world.dist / "cu131-sm120" / "simple" / "llama-cpp-python" / "index.html").exists()
    assert disk.is_marked(world.dist)
    output = capsys.readouterr().out
    assert "✓ release: rtx50, RELEASE" in output or "+ release: rtx50, RELEASE" in output
    files = world.files("rtx50")
    assert files[NAME] == pack("one")
    assert files["sbom.cdx.json"] == b'{"of": "one"}\n'
    card = files["WHEEL.md"].decode()
    assert f"git clone {world.origin} blackwheel" in card
    assert card.endswith(", by Ana, 2026-11-28.*\n")


def test_the_record_of_a_release(world: World) -> None:
    world.after()
    found = records.need(world.dist / "rtx50" / "release.json", "release", Release)
    assert found == records.need(world.root / "build/rtx50/release.json", "release", Release)
    assert (found.target, found.file, found.tested) == ("rtx50", NAME, True)
    assert found.sha256 == hashlib.sha256(pack("one")).hexdigest()
    assert found.proven == "2026-01-02T03:04:05Z"
    assert found.commit == COMMIT
    there = world.files("rtx50")
    assert sorted(found.files) == sorted({*there} - {NAME, f"{NAME}.metadata", "release.json"})
    for name, digest in found.files.items():
        assert hashlib.sha256(there[name]).hexdigest() == digest
    passed = records.need(world.dist / "rtx50" / "gate.json", "gate", Gate)
    assert {check.status for check in passed.checks} == {"ok"}


def sums(world: World) -> dict[str, str]:
    """The digests that sha256sum --check compares."""
    text = world.files("rtx50")["SHA256SUMS"].decode()
    assert text.endswith("\n")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_sha256sums_has_every_file_except_the_records_of_the_release(world: World) -> None:
    world.after()
    there = world.files("rtx50")
    left_out = {"SHA256SUMS", "release.json", f"{NAME}.metadata"}
    assert sums(world) == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in there.items()
        if name not in left_out
    }


def test_the_same_records_give_the_same_bytes(world: World) -> None:
    world.after()
    before = world.files()
    world.release("--allow-untested-gpu")
    assert world.files() == before
    assert b"UNTESTED" not in b"".join(before.values())


@pytest.mark.parametrize(("lang", "there"), [("en", {"WHEEL.md"}), ("es", {"WHEEL.es.md"})])
def test_the_wheel_card_is_in_the_requested_language(
    lang: str, there: set[str], world: World
) -> None:
    world.release("--lang", lang)
    assert {name for name in world.files("rtx50") if name.startswith("WHEEL")} == there


# ---- What is not tested ----


def test_without_the_gpu_nothing_is_released(world: World, capsys: Output) -> None:
    world.proven, world.cards = False, None
    problem = world.refused()
    assert problem.what == "NOT RELEASABLE: rtx50, for 1 reason."
    assert problem.evidence == "rtx50: smoke: not run on a GPU of compute capability 12.0"
    assert not (world.dist / "rtx50").exists()
    assert "## rtx50: NOT RELEASABLE" in world.page
    assert "nox -s bundle -- --target rtx50" in world.page
    assert not (world.dist / "simple").exists()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"]]
    output = capsys.readouterr().out
    assert "rtx50: smoke was not run here. No NVIDIA driver answers here" in output


def test_with_the_gpu_smoke_runs_once(world: World) -> None:
    world.proven, world.cards = False, (fakes.nvml_gpu(),)
    world.release()
    world.release()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["smoke"], ["verify"]]


def test_a_report_on_the_cpu_does_not_replace_a_run_on_the_gpu(world: World) -> None:
    world.cards = (fakes.nvml_gpu(),)
    on_cpu: dict[str, Any] = {"device": "cpu", "capability": None}
    world.plant = lambda found: fakes.rerun(found, **on_cpu) if len(world.calls) == 1 else found
    world.release()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["smoke"]]


def test_a_cpu_target_is_tested_on_the_cpu(world: World) -> None:
    world.proven, world.cards = False, None
    world.release("--target", "cpu")
    assert world.calls[1] == (["smoke"], "cpu", [])
    assert "sm120" not in "".join(world.files())
    assert (world.dist / "cpu" / "simple" / "llama-cpp-python" / "index.html").exists()


def test_an_untested_wheel_is_marked_in_every_document(world: World) -> None:
    world.proven, world.cards = False, None
    world.release("--allow-untested-gpu")
    files = world.files("rtx50")
    for name in ("WHEEL.md", "WHEEL.es.md", "report.html", "provenance.intoto.json", "SHA256SUMS"):
        assert b"UNTESTED" in files[name], name
    assert b"UNTESTED" in files["gate.json"]
    assert json.loads(files["release.json"])["release"]["tested"] is False
    assert "RELEASE, UNTESTED on 12.0" in world.page
    assert b"UNTESTED" in world.files()["index.html"]
    if sys.platform != "win32":  # which has no sha256sum
        assert NAME in sums(world)
    assert files["SHA256SUMS"].startswith(b"# UNTESTED on 12.0\n")


def test_a_report_is_imported_by_smoke(world: World) -> None:
    world.release("--report", "r.json", "--signers", "keys")
    words = ["--report", "r.json", "--signers", "keys"]
    assert world.calls == [(["smoke"], "rtx50", words)]


def test_a_folder_of_reports_is_imported(world: World, tmp_path: Path, capsys: Output) -> None:
    digest = hashlib.sha256(pack("one")).hexdigest()
    for name, sha256 in (("a.json", digest), ("b.json", "e" * 64)):
        text = fakes.report_text(released("rtx50", "one").facts, sha256=sha256)
        (tmp_path / name).write_text(text, encoding="utf-8")
    world.release("--reports", str(tmp_path))
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["smoke"]]
    assert world.calls[1][2][-2:] == ["--report", str(tmp_path / "a.json")]
    assert "b.json belongs to another wheel of rtx50" in capsys.readouterr().out


def test_a_report_needs_exactly_one_target() -> None:
    options = fakes.parsed("--report", "r", "--target", "rtx50,hopper")
    specs = (fakes.claiming(), HOPPER)
    ctx = fakes.context(Path("/none"), specs=specs)
    with raises("release-one-report-per-target"):
        main_release.main(dataclasses.replace(ctx, options=options))


# ---- Several targets ----


def test_releases_one_by_one_and_together_give_the_same_bytes(world: World) -> None:
    world.after("--target", "hopper")
    before = world.files("hopper")
    world.release("--target", "rtx50")
    assert world.files("hopper") == before
    assert "| hopper | RELEASE |" in world.page
    assert "| rtx50 | RELEASE |" in world.page
    assert {"cu131-sm120", "cu131-sm90"} <= {p.name for p in world.dist.iterdir()}
    one_by_one = world.files()
    disk.remove(world.dist)
    world.release("--target", "rtx50,hopper")
    assert world.files() == one_by_one


def test_a_refusal_keeps_the_earlier_release(world: World, capsys: Output) -> None:
    world.after("--target", "rtx50,hopper")
    before = world.files()
    record = (world.root / "build/rtx50/release.json").read_bytes()
    world.content, world.status = "two", " M noxfile.py\n"
    problem = world.refused("--target", "rtx50")
    assert problem.evidence.endswith("rtx50: its last release stays in dist/rtx50/")
    assert "its earlier release stays in" in capsys.readouterr().out
    after = world.files()
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"RELEASE.md", "contents.json"}
    assert after.keys() == before.keys()
    assert "| rtx50 | NOT RELEASABLE |" in world.page
    assert "| rtx50, released before | RELEASE |" in world.page
    assert (world.root / "build/rtx50/release.json").read_bytes() == record
    world.status = ""
    world.release("--target", "rtx50")
    assert world.files("rtx50")[NAME] == pack("two")
    assert "released before" not in world.page


def test_after_a_target_that_fails_the_others_are_released(world: World) -> None:
    world.after("--target", "rtx50,hopper")
    world.content, world.codes = "two", {"rtx50": 1}
    problem = world.refused("--target", "rtx50,hopper")
    assert problem.what == "NOT RELEASABLE: rtx50, for 1 reason."
    assert world.files("rtx50")[NAME] == pack("one")
    assert world.files("hopper")[NAME] == pack("two")
    assert "| hopper | RELEASE |" in world.page
    assert "| rtx50 | NOT RELEASABLE |" in world.page


def test_a_refusal_without_an_earlier_release(world: World) -> None:
    world.codes["rtx50"] = 1
    problem = world.refused()
    assert "Records of rtx50 are missing or damaged" in problem.evidence
    assert "stays" not in problem.evidence
    assert not (world.dist / "rtx50").exists()
    assert not (world.root / "build/rtx50/release.json").exists()


def test_a_changed_folder_is_not_kept_as_a_release(world: World, capsys: Output) -> None:
    world.after()
    (world.dist / "rtx50" / "WHEEL.md").write_text("better\n")
    before = world.files()
    world.status = " M noxfile.py\n"
    assert "stays" not in world.refused("--fresh").evidence
    assert world.files() == before
    assert "dist stays as it is" in capsys.readouterr().out


# ---- Tampering ----


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("WHEEL.md", "changed since it was written"),
        ("provenance.intoto.json", "changed since it was written"),
        ("SHA256SUMS", "changed since it was written"),
        ("release.json", "changed since it was written"),
        (NAME, "changed since it was written"),
        ("report.html", "missing"),
        (f"{NAME}.metadata", "changed since it was written"),
        ("more.txt", "not written by release"),
        ("more/more.txt", "not written by release"),
        ("../RELEASE.md", "changed since it was written"),
        ("../index.html", "changed since it was written"),
        ("../contents.json", "damaged, or was changed by hand"),
        ("../simple/llama-cpp-python/index.html", "changed since it was written"),
        ("../cu131-sm120/simple/llama-cpp-python/index.json", "missing"),
        ("../more/index.html", "not written by release"),
    ],
)
def test_changed_names_each_changed_file(name: str, how: str, world: World) -> None:
    world.after()
    path = world.dist / "rtx50" / name
    path.parent.mkdir(exist_ok=True)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"!")
    output = f"{path.resolve().relative_to(world.dist).as_posix()}: {how}"
    found = dist_contents.changed(world.dist)
    assert found[:1] == (output,)
    assert len(found) == 1 or how.startswith("damaged")


@pytest.mark.parametrize("name", ["rtx50/WHEEL.md", "contents.json"])
def test_a_release_is_refused_if_dist_was_changed(name: str, world: World, capsys: Output) -> None:
    world.after()
    path = world.dist / name
    path.write_bytes(path.read_bytes() + b"!")
    before = world.files()
    capsys.readouterr()
    problem = world.refused()
    assert problem.evidence == "rtx50: documents: dist/ was changed after release wrote it"
    output = capsys.readouterr().out
    assert f"{name}: " + ("damaged" if "json" in name else "changed since it was written") in output
    assert world.files() == before  # the evidence stays


def test_fresh_writes_changed_files_again(world: World, capsys: Output) -> None:
    world.after()
    before = world.files()
    (world.dist / "rtx50" / "WHEEL.md").write_text("better\n")
    (world.dist / "rtx50" / "more").mkdir()
    (world.dist / "rtx50" / "more" / "more.txt").write_text("planted\n")
    (world.dist / "index.html").write_text("pip install something-else\n")
    capsys.readouterr()
    world.release("--fresh")
    assert world.files() == before
    output = capsys.readouterr().out
    assert "dist/ was changed after release wrote it; --fresh writes it again" in output
    assert "rtx50/WHEEL.md: changed since it was written" in output


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("hopper/WHEEL.md", "hopper/WHEEL.md: changed since it was written"),
        ("contents.json", "hopper/"),  # without it everything counts as changed
    ],
)
def test_a_changed_release_of_another_target_is_refused(
    name: str, evidence: str, world: World
) -> None:
    world.after("--target", "rtx50,hopper")
    before, calls = world.files(), len(world.calls)
    (world.dist / name).write_text("{}\n")
    with raises("dist-changed") as caught:
        world.release("--target", "rtx50", "--fresh")
    assert caught.value.evidence.startswith(evidence)
    assert "nox -s release -- --target hopper --fresh" in caught.value.remedy
    assert len(world.calls) == calls  # before any build
    assert (world.dist / "hopper" / NAME).exists()
    world.release("--target", "rtx50,hopper", "--fresh")
    assert world.files() == before


def test_a_release_of_another_version_of_blackwheel_is_refused(world: World) -> None:
    world.after("--target", "hopper")
    (world.dist / "hopper" / "gate.json").write_text("{}")
    dist_contents.write(world.dist)
    with raises("dist-changed") as caught:
        world.release("--target", "rtx50")
    assert "its records belong to another version" in caught.value.evidence


def test_only_released_folders_stay(world: World) -> None:
    world.after("--target", "rtx50,hopper")
    shutil.rmtree(world.root / "build" / "hopper")  # an earlier release needs no build records
    (world.dist / "evil").mkdir()
    (world.dist / "evil" / "index.html").write_text("pip install something-else\n")
    world.release("--target", "rtx50", "--fresh")
    assert not (world.dist / "evil").exists()
    assert (world.dist / "hopper" / NAME).exists()
    shutil.rmtree(world.dist / "hopper")
    world.release("--target", "rtx50")
    assert not (world.dist / "cu131-sm90").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "evidence"),
    [
        ("build/rtx50/verify.json", " × ELF", "0 × ELF", "records: Records of rtx50 are missing"),
        (f"build/rtx50/{SMOKE}", "1e-05", "1e-06", "records: Records of rtx50 are missing"),
        (f"wheels/rtx50/{NAME}", "one", "evil", "wheel: the file is not the one that was built"),
        (f"wheels/rtx50/{NAME}", "", "", "records: Records of rtx50 are missing or damaged."),
    ],
    ids=["record", "report", "wheel", "no-wheel"],
)
def test_changed_build_outputs_are_refused(
    file: str, old: str, new: str, evidence: str, world: World
) -> None:
    world.after()
    world.monkeypatch.setattr(child_nox, "follow", lambda *_, **__: 0)  # nothing is built again
    path = world.root / file
    if old:
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    else:
        path.unlink()
    problem = world.refused("--reproduce")
    assert problem.evidence.startswith(f"rtx50: {evidence}")
    assert problem.evidence.endswith("\nrtx50: its last release stays in dist/rtx50/")
    assert world.files("rtx50")[NAME] == pack("one")


def test_a_folder_that_is_not_ours_is_not_touched(world: World) -> None:
    world.dist.mkdir()
    (world.dist / "thesis.tex").write_text("mine")
    with raises("dist-not-ours"):
        world.release()
    assert (world.dist / "thesis.tex").read_text() == "mine"
    assert world.calls == []


REPLACE = Path.replace


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def held_by_a_virus_scanner(path: Path, target: Path) -> Path:
    if path.name == ".dist.part":
        raise PermissionError(13, "a virus scanner has it open")
    return REPLACE(path, target)


@pytest.mark.parametrize(
    ("module", "name", "fails"),
    [
        (builder, "write", interrupted),
        (shutil, "copyfile", disk_full),
        (Path, "replace", held_by_a_virus_scanner),
    ],
    ids=["interrupt", "full-disk", "rename"],
)
def test_a_release_that_fails_leaves_the_old_one(
    module: object, name: str, fails: Callable[..., object], world: World
) -> None:
    world.after()
    before = world.files()
    world.content = "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fails)
        with pytest.raises((KeyboardInterrupt, OSError)):
            world.release()
    assert world.files() == before
    world.release()
    assert world.files("rtx50")[NAME] == pack("two")
    assert sorted(p.name for p in world.root.iterdir() if "dist" in p.name) == ["dist"]


def test_a_kill_between_the_two_renames_keeps_earlier_releases(world: World) -> None:
    world.after("--target", "hopper")
    before = world.files()
    world.dist.rename(world.root / ".dist.old")
    disk.mark(world.root / ".dist.part")
    (world.root / ".dist.part" / "RELEASE.md").write_text("the next one\n")
    world.release("--target", "rtx50")
    after = world.files("hopper")
    assert after == {
        n.removeprefix("hopper/"): d for n, d in before.items() if n.startswith("hopper/")
    }
    assert sorted(p.name for p in world.root.iterdir() if "dist" in p.name) == ["dist"]


def test_a_half_deleted_folder_is_not_restored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release()
    remove = disk.remove

    def killed(folder: Path) -> None:
        (folder / "RELEASE.md").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            world.release()
    remove(world.dist)
    world.release()
    assert NAME in world.files("rtx50")


def test_targets_are_locked_in_one_order_after_all_tests(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise two runs could wait for each other.
    order: list[str] = []
    monkeypatch.setattr(Context, "target_lock", lambda _, target: order.append(target))
    follow = world.follow

    def proven(root: Path, sessions: Sequence[str], target: str, words: Sequence[str]) -> int:
        order.append(f"test {target}")
        return follow(root, sessions, target, words)

    monkeypatch.setattr(child_nox, "follow", proven)
    world.release("--target", "rtx50,hopper")
    assert order == ["test rtx50", "test hopper", "hopper", "rtx50"]


# ---- The checkout ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": " M noxfile.py\n?? x\n"}, "blackwheel has uncommitted changes"),
        ({"head": (128, "fatal: not a git repository")}, "the version of blackwheel is unknown"),
        ({"head": (0, "warning: a hint\nfatal")}, "the version of blackwheel is unknown"),
        ({"top": "/elsewhere"}, "the version of blackwheel is unknown"),
    ],
)
def test_the_checkout_must_be_clean(changes: dict[str, Any], words: str, world: World) -> None:
    for name, value in changes.items():
        setattr(world, name, value)
    assert f"rtx50: checkout: {words}" in world.refused().evidence


@pytest.mark.parametrize(
    ("changes", "when"),
    [
        ({"status": " M noxfile.py\n"}, "verify"),
        ({"status": " M noxfile.py\n"}, "wheel"),
        ({"head": (0, "5" * 40)}, "wheel"),
        ({"head": (128, "gone")}, "wheel"),
    ],
)
def test_a_checkout_that_changes_during_the_build_is_refused(
    changes: dict[str, Any], when: str, world: World, capsys: Output
) -> None:
    follow, world.second = world.follow, "one"

    def edited(root: Path, sessions: Sequence[str], *words: Any, **env: Any) -> int:
        code = follow(root, sessions, *words, **env)
        if when in sessions:
            for name, value in changes.items():
                setattr(world, name, value)
        return code

    world.monkeypatch.setattr(child_nox, "follow", edited)
    problem = world.refused("--reproduce")
    assert "rtx50: checkout:" in problem.evidence
    output = capsys.readouterr().out
    assert "it changed meanwhile" in output
    assert f"before: {COMMIT}" in output
    assert not (world.dist / "rtx50").exists()


def test_temporary_folders_of_dist_are_not_changes_of_the_checkout(world: World) -> None:
    world.after()  # git lists .dist.part of another run
    disk.mark(world.root / ".dist.part")
    world.release()


def test_source_date_epoch_is_refused_before_anything_is_built(world: World) -> None:
    ctx = world.context()
    env = {**ctx.env, "SOURCE_DATE_EPOCH": "1700000000"}
    with raises("release-source-date-epoch") as caught:
        main_release.main(dataclasses.replace(ctx, env=env))
    assert (caught.value.code, world.calls) == (USAGE, [])
    main_release.main(dataclasses.replace(ctx, env={**env, "SOURCE_DATE_EPOCH": ""}))


# ---- Two architectures ----


def test_each_required_gpu_of_this_machine_is_tested(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = fakes.claiming(archs=("90-real", "120-real"))
    h200 = fakes.nvml_gpu(index=1, name="NVIDIA H200", compute_capability="9.0")
    world.cards = (fakes.nvml_gpu(), h200)
    ctx = dataclasses.replace(world.context(), spec=both)
    calls: list[list[str]] = []

    def follow(_: Path, sessions: list[str], __: str, words: list[str]) -> int:
        calls.append([*sessions, *(word for word in words if "device" in word)])
        return 0

    monkeypatch.setattr(child_nox, "follow", follow)
    wheel = fakes.wheel()
    records.write(ctx.record("wheel"), "wheel", wheel)
    assert main_release._test(ctx, ()) == 0
    assert calls == [
        ["verify"],
        *(["smoke", "--device=1"], ["smoke", "--device=0"]),
        *(["ops", "--device=1"], ["ops", "--device=0"]),
    ]
    # An existing report is not made again, and no report without its GPU.
    report = fakes.report(fakes.evidence())
    records.write(check_smoke_report.record(ctx.build, "12.0"), "smoke", report)
    calls.clear()
    assert main_release._test(ctx, ()) == 0
    assert calls == [
        ["verify"], ["smoke", "--device=1"], ["ops", "--device=1"], ["ops", "--device=0"],
    ]  # fmt: skip
    world.cards, calls[:] = None, []
    assert main_release._test(ctx, ()) == 0
    assert calls == [["verify"]]


def test_warnings_of_git_are_ignored(world: World) -> None:
    world.head = (0, f"warning: refname 'HEAD' is ambiguous.\n{COMMIT}\n")
    world.top = f"warning: a hint\n{world.root}\n"
    world.release()
    record = world.dist / "rtx50" / "release.json"
    assert records.need(record, "release", Release).commit == COMMIT


# ---- Twice ----


def test_the_result_of_a_second_build_is_in_this_and_later_releases(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks: list[int] = []
    monkeypatch.setattr(Context, "target_lock", lambda *_: locks.append(len(world.calls)))
    world.second = "one"
    world.release("--reproduce")
    assert locks == [1]  # the target is locked before the second build
    assert "a second build, from nothing and in another folder, gave the same bytes" in world.page
    (sessions, target, words) = world.calls[1]
    assert (sessions, target) == (["wheel"], "rtx50")
    assert "--cache=none" in words
    assert not (world.root / "build" / "rtx50" / "again").exists()
    before = world.files()
    world.release()
    assert world.files() == before
    world.content = "two"  # no second build of this wheel
    world.release()
    assert "reproduce" not in world.page
    world.refused("--reproduce")
    assert "reproduce: a second build gave another wheel" in world.refused().evidence
    world.second = "two"
    world.release("--reproduce")


def test_a_wheel_that_fails_a_check_is_not_built_twice(world: World, capsys: Output) -> None:
    world.second, world.status = "one", "?? x\n"
    world.refused("--reproduce")
    assert [sessions for sessions, _, _ in world.calls] == [["verify"]]
    assert "rtx50: not built a second time" in capsys.readouterr().out


def test_a_second_build_needs_every_file_that_git_lists(world: World, capsys: Output) -> None:
    world.tracked = "noxfile.py\0warning: a hint\nsessions/release.py\0"
    world.second = "one"
    world.refused("--reproduce")
    assert "not built again: git ls-files names 'warning: a hint" in capsys.readouterr().out
    world.release()  # that was not a result about the wheel


def test_the_differences_of_a_second_build_are_shown(
    world: World, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    world.second = "two"
    problem = world.refused("--reproduce")
    assert problem.evidence == "rtx50: reproduce: a second build gave another wheel"
    output = capsys.readouterr().out
    assert "llama_cpp/__init__.py: line 1 is 'one', and 'two'" in output
    kept = world.root / "build" / "rtx50" / "again" / "diffoscope.txt"
    assert f"diffoscope says more: {kept}" in output
    assert kept.exists()


def test_a_second_build_that_fails_is_refused(world: World, capsys: Output) -> None:
    problem = world.refused("--reproduce")
    assert "reproduce: a second build gave another wheel" in problem.evidence
    assert "the second build ended with 0 and no wheel" in capsys.readouterr().out


def test_relative_paths_are_valid_in_the_second_build(world: World, tmp_path: Path) -> None:
    world.second = "one"
    compiler = tmp_path / "g++"
    compiler.touch()
    world.monkeypatch.chdir(tmp_path)
    world.release("--reproduce", "--compiler", "g++")
    assert f"--compiler={compiler}" in world.calls[1][2]
    assert "--compiler=g++" in world.calls[0][2]


# ---- Signing ----


def signing(world: World, code: int, *, writes: bool = True) -> None:
    def inherit(command: list[str], *, env: Any = None) -> int:
        world.inherited.append(command)
        if writes:
            Path(command[command.index("--bundle") + 1]).write_text(f"{len(world.inherited)}")
        return code

    world.monkeypatch.setattr(programs, "inherit", inherit)


def test_sigstore_signs_the_provenance_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    signing(world, 0)
    world.release("--sigstore")
    (command,) = world.inherited
    assert command[:2] == ["/usr/bin/sigstore", "attest"]
    assert command[command.index("--predicate-type") + 1] == "https://slsa.dev/provenance/v1"
    assert command[-1] == str(world.root / "wheels" / "rtx50" / NAME)
    output = json.loads(Path(command[command.index("--predicate") + 1]).read_text())
    files = world.files("rtx50")
    assert output == json.loads(files["provenance.intoto.json"])["predicate"]
    assert files[f"{NAME}.sigstore.json"] == b"1"
    before = world.files()
    world.release("--sigstore")
    world.release()
    assert len(world.inherited) == 1
    assert world.files() == before


@pytest.mark.parametrize(
    ("program", "code", "writes", "id_"),
    [
        ("/usr/bin/sigstore", 1, True, "sigstore-failed"),
        ("/usr/bin/sigstore", 0, False, "sigstore-failed"),
        (None, 0, True, "sigstore-missing"),
    ],
)
def test_without_a_signature_nothing_is_released(
    program: str | None,
    code: int,
    writes: bool,
    id_: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: program)
    signing(world, code, writes=writes)
    with raises(id_):
        world.release("--sigstore")
    assert not world.dist.exists()


def test_reports_and_signatures_are_released_unchanged(world: World) -> None:
    world.after()
    build = world.root / "build" / "rtx50"
    (build / "smoke-report-12.0.json.sig").write_bytes(b"signed\n")
    wheel = records.need(build / "wheel.json", "wheel", Wheel)
    found = fakes.measured(fakes.evidence(fakes.wheel_facts(sha256=wheel.sha256)), "seed")
    assert found.measured is not None
    records.write(build / "bench.json", "bench", found.bench)
    (build / "bench-report.json").write_bytes(found.measured.encode())
    world.release()
    files = world.files("rtx50")
    assert files["smoke-12.0.json"] == (build / "smoke-report-12.0.json").read_bytes()
    assert files["smoke-12.0.json.sig"] == b"signed\n"
    assert files["bench.json"] == found.measured.encode()
    assert b"| seed | generation | 1 |" in files["WHEEL.md"]
    assert b"over seed: same" in files["report.html"]


# ---- A dry run -----------------------------------------------------------------------------------


def state_of(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("released", [False, True])
def test_a_dry_run_prints_each_step_and_does_nothing(
    world: World, capsys: Output, released: bool
) -> None:
    if released:
        world.release()
        world.calls.clear()
        capsys.readouterr()
    before = state_of(world.root)
    words = ["--reproduce", "--sigstore", "--lang", "es"]
    world.release("--target", "rtx50,cpu", "--dry-run", *words)
    assert (world.calls, world.inherited) == ([], [])
    assert state_of(world.root) == before
    output = capsys.readouterr().out
    assert "nox -s verify -- --target rtx50" in output
    assert f"{'replace' if released else 'write'} dist/rtx50/" in output
    assert "write dist/cpu/" in output
    assert "compute capability 12.0" in output or released
    assert "recorded for this wheel" in output or not released
    assert "sigstore" in output
    assert "compare" in output
    assert "(es)" in output


def test_a_dry_run_names_the_report(world: World, capsys: Output) -> None:
    world.release("--report", "r.json", "--dry-run")
    output = capsys.readouterr().out
    assert "r.json" in output
    assert "sigstore" not in output
    assert "compare" not in output
    assert world.calls == []


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("https://example.org/b.git", True),
        ("git@example.org:a/b.git", True),
        ("https://ana:secret@example.org/b.git", False),
        ("/home/ana/b", False),
        ("", False),
    ],
)
def test_only_public_addresses_without_secrets_are_read(
    world: World, origin: str, shown: bool
) -> None:
    world.origin = origin
    assert git_state.read(world.context()).origin == (origin if shown else "")
