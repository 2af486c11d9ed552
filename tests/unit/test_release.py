"""``release``: what is tested gets documents in dist/, what is not gets reasons, and no place."""

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

from sessions.build.model import Wheel
from sessions.command_line import child_nox
from sessions.probe import gpu_choice
from sessions.release import dist_contents, git_state, main_release
from sessions.release.evidence import Evidence, Run
from sessions.release.index import builder
from sessions.release.model import Gate, Release
from sessions.run import smoke_results
from sessions.run.model import SmokeReport
from sessions.shared import disk, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.shared.programs import Finished
from sessions.verify import checks_digest
from tests import fakes
from tests.problems import raises

COMMIT = "4" * 40
NAME = fakes.wheel().file
HOPPER = fakes.claiming(target="hopper", archs=("90-real",))
CPU = fakes.cpu_spec(budget_mb=4)
SPECS = {"rtx50": fakes.claiming(), "hopper": HOPPER, "cpu": CPU}
NO_DRIVER = {"error": "NVML Shared Library Not Found"}
Told = pytest.CaptureFixture[str]


def pack(content: str) -> bytes:
    """A wheel as far as a release reads it: METADATA and the bill of materials."""
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
    """All that is known of a wheel with this content that may be released."""
    data = pack(content)
    digest = hashlib.sha256(data).hexdigest()
    spec = SPECS[target]
    if spec is CPU:
        facts = fakes.cpu_facts(sha256=digest, size=len(data))
    else:
        facts = fakes.wheel_facts(sha256=digest, size=len(data))
        if spec is HOPPER:
            code = fakes.device(sass={"sm_90": 98})
            inside = [
                dataclasses.replace(lib, device=code) if lib.device else lib
                for lib in fakes.libraries()
            ]
            facts = fakes.wheel_facts(sha256=digest, size=len(data), libraries=tuple(inside))
    found = fakes.evidence(facts, spec=spec)
    # Nothing was compiled for it, so there is no record of steps.
    wheel = dataclasses.replace(found.wheel, timing={})
    verdict = checks_digest.fingerprint(spec, wheel)
    verify = dataclasses.replace(found.verify, fingerprint=verdict)
    card = gpu_choice.capabilities(spec)
    gone = () if card else fakes.ON_A_GPU
    where = {
        "device": "A GPU" if card else "cpu",
        "capability": card[0] if card else None,
        "checks": [check for check in fakes.smoke_checks() if check["id"] not in gone],
    }
    text = fakes.report_text(facts, spec.target, **where)
    run = Run(smoke_results.opened(text, None, digest, "here"), text)
    on = {key: where[key] for key in ("device", "capability")}
    ops = (fakes.ops_run(facts, spec, **on),)
    return dataclasses.replace(found, wheel=wheel, verify=verify, runs=(run,), ops=ops)


_CALLS: dict[Path, list[tuple[list[str], str, list[str]]]] = {}  # what a kept release called


@dataclasses.dataclass
class World:
    """A project whose sessions and git are played: what they were told, and what they leave."""

    root: Path
    kept: Path  # where the projects are that ``after`` copies
    monkeypatch: pytest.MonkeyPatch
    calls: list[tuple[list[str], str, list[str]]] = dataclasses.field(default_factory=list)
    codes: dict[str, int] = dataclasses.field(default_factory=dict)  # target -> how it ends
    content: str = "one"
    proven: bool = True
    status: str = ""
    head: tuple[int, str] = (0, COMMIT)
    top: str = ""
    origin: str = "https://example.org/b.git"
    cards: tuple[dict[str, Any], ...] | None = ()
    second: str | None = None  # the content of the wheel that a second build gives
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
        """The wheel and the records of a chain."""
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
        asked = fakes.parsed(*words)
        specs = tuple(SPECS[name] for name in (asked.target or "rtx50").split(","))

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
        """What a release leaves in a new project: made once for each command line, then copied."""
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
    made = World(root, kept, monkeypatch)
    monkeypatch.setattr(child_nox, "follow", made.follow)
    monkeypatch.setattr(programs, "capture", made.capture)
    monkeypatch.setattr(Context, "target_lock", lambda *_: None)
    return made


PAPERS = [
    "SHA256SUMS", "WHEEL.es.md", "WHEEL.md", "facts.json", "gate.json", NAME, f"{NAME}.metadata",
    "ops-12.0.json", "provenance.intoto.json", "release.json", "report.html", "sbom.cdx.json",
    "smoke-12.0.json", "verify.json", "wheel.json",
]  # fmt: skip


def test_what_is_tested_is_released_with_all_its_documents(world: World, capsys: Told) -> None:
    world.release()
    assert sorted(p.name for p in (world.dist / "rtx50").iterdir()) == sorted(PAPERS)
    assert world.calls == [(["verify"], "rtx50", [])]
    assert "## rtx50: RELEASE\n" in world.page
    assert (world.dist / "simple" / "llama-cpp-python" / "index.html").exists()
    assert (world.dist / "cu131-sm120" / "simple" / "llama-cpp-python" / "index.html").exists()
    assert disk.is_marked(world.dist)
    told = capsys.readouterr().out
    assert "✓ release: rtx50, RELEASE" in told or "+ release: rtx50, RELEASE" in told
    wheel = (world.dist / "rtx50" / NAME).read_bytes()
    assert wheel == pack("one")
    assert world.files("rtx50")["sbom.cdx.json"] == b'{"of": "one"}\n'


def test_its_record_says_what_was_released(world: World) -> None:
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
    """What sha256sum --check would compare: the lines that are no comment."""
    text = world.files("rtx50")["SHA256SUMS"].decode()
    assert text.endswith("\n")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_the_list_of_hashes_is_of_every_file_but_those_that_have_it(world: World) -> None:
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
    world.release()
    assert world.files() == before


@pytest.mark.parametrize(("lang", "there"), [("en", {"WHEEL.md"}), ("es", {"WHEEL.es.md"})])
def test_the_gpu_is_in_the_language_that_was_asked_for(
    lang: str, there: set[str], world: World
) -> None:
    world.release("--lang", lang)
    assert {name for name in world.files("rtx50") if name.startswith("WHEEL")} == there


# ---- What is not tested ----


def test_without_the_gpu_there_is_one_reason_and_nothing_is_released(
    world: World, capsys: Told
) -> None:
    world.proven, world.cards = False, None
    problem = world.refused()
    assert problem.what == "NOT RELEASABLE: rtx50, for 1 reason."
    assert problem.evidence == "rtx50: smoke: not run on a GPU of compute capability 12.0"
    assert not (world.dist / "rtx50").exists()
    assert "## rtx50: NOT RELEASABLE" in world.page
    assert "nox -s bundle -- --target rtx50" in world.page
    assert not (world.dist / "simple").exists()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"]]
    told = capsys.readouterr().out
    assert "rtx50: smoke was not run here. No NVIDIA driver answers here" in told


def test_with_the_gpu_smoke_is_run(world: World) -> None:
    world.proven, world.cards = False, (fakes.nvml_gpu(),)
    world.release()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["smoke"]]


def test_a_report_on_this_wheel_is_not_made_again(world: World) -> None:
    world.cards = (fakes.nvml_gpu(),)
    world.release()
    world.release()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["verify"]]


def test_a_report_on_the_cpu_is_none_for_a_gpu(world: World) -> None:
    world.cards = (fakes.nvml_gpu(),)
    on_cpu: dict[str, Any] = {"device": "cpu", "capability": None}

    def plant(found: Evidence) -> Evidence:
        if len(world.calls) > 1:
            return found
        return fakes.rerun(found, **on_cpu)

    world.plant = plant
    world.release()
    assert [sessions for sessions, _, _ in world.calls] == [["verify"], ["smoke"]]


def test_a_cpu_target_is_tested_on_the_cpu(world: World) -> None:
    world.proven, world.cards = False, None
    world.release("--target", "cpu")
    assert world.calls[1] == (["smoke"], "cpu", [])
    assert "sm120" not in "".join(world.files())
    assert (world.dist / "cpu" / "simple" / "llama-cpp-python" / "index.html").exists()


def test_untested_is_in_every_paper_where_it_is_allowed(world: World) -> None:
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


def test_a_tested_wheel_is_nowhere_called_untested(world: World) -> None:
    world.release("--allow-untested-gpu")
    assert [name for name, data in world.files("rtx50").items() if b"UNTESTED" in data] == []


def test_a_report_is_handed_to_smoke(world: World) -> None:
    world.release("--report", "r.json", "--signers", "keys")
    words = ["--report", "r.json", "--signers", "keys"]
    assert world.calls == [(["smoke"], "rtx50", words)]


def test_a_report_is_of_one_target() -> None:
    asked = fakes.parsed("--report", "r", "--target", "rtx50,hopper")
    specs = (fakes.claiming(), HOPPER)
    ctx = fakes.context(Path("/none"), specs=specs)
    with raises("release-one-report-per-target"):
        main_release.main(dataclasses.replace(ctx, options=asked))


# ---- Several targets ----


def test_the_release_of_several_goes_on_after_one_that_fails(world: World) -> None:
    world.codes["rtx50"] = 1
    problem = world.refused("--target", "rtx50,hopper")
    assert problem.what == "NOT RELEASABLE: rtx50, for 1 reason."
    assert "Records of rtx50 are missing or damaged" in problem.evidence
    assert not (world.dist / "rtx50").exists()
    assert (world.dist / "hopper" / NAME).exists()
    assert "| hopper | RELEASE |" in world.page
    assert "| rtx50 | NOT RELEASABLE |" in world.page


def test_what_was_released_before_stays_beside_it(world: World) -> None:
    world.after("--target", "hopper")
    before = world.files("hopper")
    world.release("--target", "rtx50")
    assert world.files("hopper") == before
    assert "| hopper | RELEASE |" in world.page
    assert "| rtx50 | RELEASE |" in world.page
    assert {"cu131-sm120", "cu131-sm90"} <= {p.name for p in world.dist.iterdir()}


def test_one_by_one_and_together_give_the_same_bytes(world: World) -> None:
    world.after("--target", "hopper")
    world.release("--target", "rtx50")
    one_by_one = world.files()
    disk.remove(world.dist)
    world.release("--target", "rtx50,hopper")
    assert world.files() == one_by_one


def test_a_refusal_keeps_what_was_released_before(world: World, capsys: Told) -> None:
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


def test_a_refusal_of_one_releases_the_other_and_keeps_both(world: World) -> None:
    world.after("--target", "rtx50,hopper")
    world.content, world.codes = "two", {"rtx50": 1}
    world.refused("--target", "rtx50,hopper")
    assert world.files("rtx50")[NAME] == pack("one")
    assert world.files("hopper")[NAME] == pack("two")


def test_a_refusal_with_nothing_released_before_keeps_nothing(world: World) -> None:
    world.status = " M noxfile.py\n"
    assert "stays" not in world.refused().evidence
    assert not (world.root / "build/rtx50/release.json").exists()


def test_what_was_changed_is_not_kept_as_a_release(world: World, capsys: Told) -> None:
    world.after()
    (world.dist / "rtx50" / "WHEEL.md").write_text("better\n")
    before = world.files()
    world.status = " M noxfile.py\n"
    assert "stays" not in world.refused("--fresh").evidence
    assert world.files() == before
    assert "dist stays as it is" in capsys.readouterr().out


def test_a_new_wheel_takes_the_place_of_the_old(world: World) -> None:
    world.after()
    world.content = "two"
    world.release()
    assert (world.dist / "rtx50" / NAME).read_bytes() == pack("two")


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
def test_changed_names_what_was_tampered_with(name: str, how: str, world: World) -> None:
    world.after()
    path = world.dist / "rtx50" / name
    path.parent.mkdir(exist_ok=True)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"!")
    told = f"{path.resolve().relative_to(world.dist).as_posix()}: {how}"
    found = dist_contents.changed(world.dist)
    assert found[:1] == (told,)
    assert len(found) == 1 or how.startswith("damaged")


@pytest.mark.parametrize("name", ["rtx50/WHEEL.md", "contents.json"])
def test_a_release_is_refused_where_dist_was_changed(name: str, world: World, capsys: Told) -> None:
    world.after()
    path = world.dist / name
    path.write_bytes(path.read_bytes() + b"!")
    before = world.files()
    capsys.readouterr()
    problem = world.refused()
    assert problem.evidence == "rtx50: documents: dist/ was changed after release wrote it"
    told = capsys.readouterr().out
    assert f"{name}: " + ("damaged" if "json" in name else "changed since it was written") in told
    assert world.files() == before  # what happened can be looked at


def test_what_was_tampered_with_is_written_anew_when_told_so(world: World, capsys: Told) -> None:
    world.after()
    before = world.files()
    (world.dist / "rtx50" / "WHEEL.md").write_text("better\n")
    (world.dist / "rtx50" / "more").mkdir()
    (world.dist / "rtx50" / "more" / "more.txt").write_text("planted\n")
    (world.dist / "index.html").write_text("pip install something-else\n")
    capsys.readouterr()
    world.release("--fresh")
    assert world.files() == before
    told = capsys.readouterr().out
    assert "dist/ was changed after release wrote it; --fresh writes it again" in told
    assert "rtx50/WHEEL.md: changed since it was written" in told


def test_a_paper_of_another_target_that_was_tampered_with_is_noticed(world: World) -> None:
    world.after("--target", "hopper")
    (world.dist / "hopper" / "WHEEL.md").write_text("better\n")
    with raises("dist-changed") as caught:
        world.release("--target", "rtx50")
    assert caught.value.evidence == "hopper/WHEEL.md: changed since it was written"
    assert "nox -s release -- --target hopper --fresh" in caught.value.remedy
    assert [target for _, target, _ in world.calls] == ["hopper"]  # before any build
    assert not (world.dist / "rtx50").exists()
    world.release("--target", "hopper", "--fresh")
    world.release("--target", "rtx50")


def test_where_nothing_says_what_was_written_nothing_of_it_is_thrown_away(world: World) -> None:
    world.after("--target", "rtx50,hopper")
    before = world.files()
    (world.dist / "contents.json").write_text("{}\n")
    calls = len(world.calls)
    with raises("dist-changed"):
        world.release("--target", "rtx50", "--fresh")
    assert len(world.calls) == calls
    assert (world.dist / "hopper" / NAME).exists()
    world.release("--target", "rtx50,hopper", "--fresh")
    assert world.files() == before


def test_a_target_whose_folder_was_deleted_is_released_no_longer(world: World) -> None:
    world.after("--target", "rtx50,hopper")
    shutil.rmtree(world.dist / "hopper")
    world.release("--target", "rtx50")
    assert not (world.dist / "cu131-sm90").exists()


def test_what_was_planted_beside_another_target_is_not_taken_over(world: World) -> None:
    world.after("--target", "hopper")
    evil = world.dist / "evil"
    evil.mkdir()
    (evil / "index.html").write_text("pip install something-else\n")
    world.release("--target", "rtx50", "--fresh")
    assert not evil.exists()
    assert (world.dist / "hopper" / NAME).exists()


def test_what_lies_in_dist_is_known_after_all_records_were_cleaned_away(world: World) -> None:
    world.after("--target", "hopper")
    shutil.rmtree(world.root / "build" / "hopper")
    world.release("--target", "rtx50")
    assert (world.dist / "hopper" / NAME).exists()


def test_a_record_that_was_tampered_with_is_noticed(world: World) -> None:
    def follow(*_: Any, **__: Any) -> int:
        return 0  # nothing is fixed on the way

    world.release()
    world.monkeypatch.setattr(child_nox, "follow", follow)
    path = world.root / "build" / "rtx50" / "verify.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(" × ELF", "0 × ELF"), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    problem = world.refused()
    assert problem.evidence.splitlines() == [
        "rtx50: records: Records of rtx50 are missing or damaged.",
        "rtx50: its last release stays in dist/rtx50/",
    ]


def test_a_wheel_that_was_tampered_with_is_noticed(world: World) -> None:
    world.after()
    world.monkeypatch.setattr(child_nox, "follow", lambda *_, **__: 0)
    (world.root / "wheels" / "rtx50" / NAME).write_bytes(pack("evil"))
    told = world.refused().evidence
    assert "wheel: the file is not the one that was built" in told
    assert world.files("rtx50")[NAME] == pack("one")


def test_a_folder_that_is_not_ours_is_not_touched(world: World) -> None:
    world.dist.mkdir()
    (world.dist / "thesis.tex").write_text("mine")
    with raises("dist-not-ours"):
        world.release()
    assert (world.dist / "thesis.tex").read_text() == "mine"
    assert world.calls == []


def test_an_interrupted_release_leaves_the_old_one(world: World) -> None:
    world.after()
    before = world.files()
    world.content = "two"

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.release()
    assert world.files() == before
    world.release()
    assert world.files("rtx50")[NAME] == pack("two")
    assert sorted(p.name for p in world.root.iterdir() if "dist" in p.name) == ["dist"]


def test_what_stops_a_release_is_not_taken_for_tampering(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release()
    world.content = "two"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            world.release()
    world.release()
    assert world.files("rtx50")[NAME] == pack("two")


def test_a_kill_between_the_two_renames_loses_nothing(world: World) -> None:
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


def test_a_rename_that_fails_leaves_the_old_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release()
    before, replace = world.files(), Path.replace

    def held(path: Path, target: Path) -> Path:
        if path.name == ".dist.part":
            raise PermissionError(13, "a virus scanner has it open")
        return replace(path, target)

    world.content = "two"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        with pytest.raises(PermissionError):
            world.release()
    assert world.files() == before


def test_what_is_half_deleted_is_not_put_back(
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


def test_the_targets_are_taken_in_one_order_and_after_all_are_tested(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else two runs could each have what the other waits for.
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
def test_the_checkout_must_be_a_clean_one(
    changes: dict[str, Any], words: str, world: World
) -> None:
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
    changes: dict[str, Any], when: str, world: World, capsys: Told
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
    told = capsys.readouterr().out
    assert "it changed meanwhile" in told
    assert f"before: {COMMIT}" in told
    assert not (world.dist / "rtx50").exists()


def test_a_change_that_was_undone_or_is_of_dist_is_none(world: World) -> None:
    world.after()  # git sees .dist.part of another run
    disk.mark(world.root / ".dist.part")
    world.release()


def test_a_time_of_the_callers_is_refused_before_anything_is_built(world: World) -> None:
    ctx = world.context()
    for value, refused in (("1700000000", True), ("", False)):
        env = {**ctx.env, "SOURCE_DATE_EPOCH": value}
        if not refused:
            main_release.main(dataclasses.replace(ctx, env=env))
            continue
        with raises("release-source-date-epoch") as caught:
            main_release.main(dataclasses.replace(ctx, env=env))
        assert (caught.value.id, caught.value.code) == ("release-source-date-epoch", USAGE)
        assert world.calls == []


# ---- Two architectures ----


def test_smoke_runs_on_each_gpu_that_is_here_and_needed(
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
    assert main_release._prove(ctx, ()) == 0
    assert calls == [
        ["verify"],
        *(["smoke", "--device=1"], ["smoke", "--device=0"]),
        *(["ops", "--device=1"], ["ops", "--device=0"]),
    ]
    # One that is there already is not made again; nor is one without its GPU.
    report = fakes.report(fakes.evidence())
    records.write(smoke_results.record(ctx.build, "12.0"), "smoke", report)
    calls.clear()
    assert main_release._prove(ctx, ()) == 0
    assert calls == [
        ["verify"], ["smoke", "--device=1"], ["ops", "--device=1"], ["ops", "--device=0"],
    ]  # fmt: skip
    world.cards, calls[:] = None, []
    assert main_release._prove(ctx, ()) == 0
    assert calls == [["verify"]]


def test_a_warning_of_gits_is_no_commit(world: World) -> None:
    world.head = (0, f"warning: refname 'HEAD' is ambiguous.\n{COMMIT}\n")
    world.top = f"warning: a hint\n{world.root}\n"
    world.release()
    record = world.dist / "rtx50" / "release.json"
    assert records.need(record, "release", Release).commit == COMMIT


# ---- Twice ----


def test_a_second_build_that_gives_the_same_is_said(world: World) -> None:
    world.second = "one"
    world.release("--reproduce")
    assert "a second build, from nothing and in another folder, gave the same bytes" in world.page
    (sessions, target, words) = world.calls[1]
    assert (sessions, target) == (["wheel"], "rtx50")
    assert "--cache=none" in words
    assert not (world.root / "build" / "rtx50" / "again").exists()


def test_what_a_second_build_gave_is_said_by_later_releases_too(world: World) -> None:
    world.second = "one"
    world.release("--reproduce")
    before = world.files()
    world.release()
    assert world.files() == before
    world.content = "two"  # of this wheel nothing is known
    world.release()
    assert "reproduce" not in world.page
    world.refused("--reproduce")
    assert "reproduce: a second build gave another wheel" in world.refused().evidence
    world.second = "two"
    world.release("--reproduce")


def test_what_may_not_be_released_is_not_built_twice(world: World, capsys: Told) -> None:
    world.second, world.status = "one", "?? x\n"
    world.refused("--reproduce")
    assert [sessions for sessions, _, _ in world.calls] == [["verify"]]
    assert "rtx50: not built a second time" in capsys.readouterr().out


def test_a_target_is_this_runs_own_while_it_is_built_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Context, "target_lock", lambda *_: taken.append(len(world.calls)))
    world.second = "one"
    world.release("--reproduce")
    assert taken == [1]
    assert len(world.calls) == 2


def test_a_first_wheel_that_is_gone_is_a_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release()
    monkeypatch.setattr(child_nox, "follow", lambda *_, **__: 0)
    (world.root / "wheels" / "rtx50" / NAME).unlink()
    assert "records: Records of rtx50 are missing" in world.refused("--reproduce").evidence


def test_what_git_lists_and_is_not_there_is_not_left_out(world: World, capsys: Told) -> None:
    world.tracked = "noxfile.py\0warning: a hint\nsessions/release.py\0"
    world.second = "one"
    world.refused("--reproduce")
    assert "not built again: git ls-files names 'warning: a hint" in capsys.readouterr().out
    world.release()  # which says nothing of the wheel


def test_a_second_build_that_differs_says_in_what_and_is_kept(
    world: World, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    world.second = "two"
    problem = world.refused("--reproduce")
    assert problem.evidence == "rtx50: reproduce: a second build gave another wheel"
    told = capsys.readouterr().out
    assert "llama_cpp/__init__.py: line 1 is 'one', and 'two'" in told
    kept = world.root / "build" / "rtx50" / "again" / "diffoscope.txt"
    assert f"diffoscope says more: {kept}" in told
    assert kept.exists()


def test_a_second_build_that_fails_is_a_reason(world: World, capsys: Told) -> None:
    problem = world.refused("--reproduce")
    assert "reproduce: a second build gave another wheel" in problem.evidence
    assert "the second build ended with 0 and no wheel" in capsys.readouterr().out


def test_the_paths_of_the_caller_hold_in_the_other_folder(world: World, tmp_path: Path) -> None:
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


def test_sigstore_signs_the_provenance_of_the_wheel_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    signing(world, 0)
    world.release("--sigstore")
    (command,) = world.inherited
    assert command[:2] == ["/usr/bin/sigstore", "attest"]
    assert command[command.index("--predicate-type") + 1] == "https://slsa.dev/provenance/v1"
    assert command[-1] == str(world.root / "wheels" / "rtx50" / NAME)
    told = json.loads(Path(command[command.index("--predicate") + 1]).read_text())
    papers = world.files("rtx50")
    assert told == json.loads(papers["provenance.intoto.json"])["predicate"]
    assert papers[f"{NAME}.sigstore.json"] == b"1"
    before = world.files()
    world.release("--sigstore")
    world.release()
    assert len(world.inherited) == 1
    assert world.files() == before


def test_without_sigstore_it_says_how_to_get_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with raises("sigstore-missing") as caught:
        world.release("--sigstore")
    assert caught.value.remedy == "pipx install sigstore"
    assert not world.dist.exists()


@pytest.mark.parametrize(("code", "writes"), [(1, True), (0, False)])
def test_a_signature_that_was_not_made_stops_the_release(
    code: int, writes: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    signing(world, code, writes=writes)
    with raises("sigstore-failed"):
        world.release("--sigstore")
    assert not world.dist.exists()


def test_the_report_and_its_signature_are_handed_on_as_they_are(world: World) -> None:
    world.after()
    build = world.root / "build" / "rtx50"
    (build / "smoke-report-12.0.json.sig").write_bytes(b"signed\n")
    world.release()
    papers = world.files("rtx50")
    assert papers["smoke-12.0.json"] == (build / "smoke-report-12.0.json").read_bytes()
    assert papers["smoke-12.0.json.sig"] == b"signed\n"
    report = records.need(build / "smoke-12.0.json", "smoke", SmokeReport)
    assert (
        smoke_results.opened(papers["smoke-12.0.json"].decode(), None, report.sha256, "here")
        == report
    )


def test_what_was_measured_is_in_the_documents(world: World) -> None:
    world.after()
    build = world.root / "build" / "rtx50"
    wheel = records.need(build / "wheel.json", "wheel", Wheel)
    found = fakes.measured(fakes.evidence(fakes.wheel_facts(sha256=wheel.sha256)), "seed")
    assert found.measured is not None
    records.write(build / "bench.json", "bench", found.bench)
    (build / "bench-report.json").write_bytes(found.measured.encode())
    world.release()
    papers = world.files("rtx50")
    assert papers["bench.json"] == found.measured.encode()
    assert b"| seed | generation | 1 |" in papers["WHEEL.md"]
    assert b"over seed: same" in papers["report.html"]


# ---- A dry run -----------------------------------------------------------------------------------


def state_of(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("released", [False, True])
def test_a_dry_run_says_each_step_and_does_none(world: World, capsys: Told, released: bool) -> None:
    if released:
        world.release()
        world.calls.clear()
        capsys.readouterr()
    before = state_of(world.root)
    words = ["--reproduce", "--sigstore", "--lang", "es"]
    world.release("--target", "rtx50,cpu", "--dry-run", *words)
    assert (world.calls, world.inherited) == ([], [])
    assert state_of(world.root) == before
    said = capsys.readouterr().out
    assert "nox -s verify -- --target rtx50" in said
    assert f"{'replace' if released else 'write'} dist/rtx50/" in said
    assert "write dist/cpu/" in said
    assert "compute capability 12.0" in said or released
    assert "recorded for this wheel" in said or not released
    assert "sigstore" in said
    assert "compare" in said
    assert "(es)" in said


def test_a_dry_run_names_the_report_that_it_would_take(world: World, capsys: Told) -> None:
    world.release("--report", "r.json", "--dry-run")
    said = capsys.readouterr().out
    assert "r.json" in said
    assert "sigstore" not in said
    assert "compare" not in said
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
def test_read_takes_no_address_that_has_a_secret_or_is_not_public(
    world: World, origin: str, shown: bool
) -> None:
    world.origin = origin
    assert git_state.read(world.context()).origin == (origin if shown else "")


def test_the_card_has_the_address_to_clone_if_there_is_one(world: World) -> None:
    world.after()
    card = world.files("rtx50")["WHEEL.md"].decode()
    assert f"git clone {world.origin} blackwheel" in card
    assert card.endswith(", by Ana, 2026-11-28.*\n")
    world.origin = "https://ana:secret@example.org/b.git"
    world.release()
    card = world.files("rtx50")["WHEEL.md"].decode()
    assert "git clone ADDRESS-OF-BLACKWHEEL" in card
    assert "secret" not in card
