"""``release`` end to end on a small locked upstream: tests, checks, dist/, index, installation.

The results of smoke and ops are imported from reports, because there is no GPU and no model.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sessions.lock import main_lock as locking
from sessions.payload import report_file
from tests import fakes
from tests.integration import servers
from tests.integration.conftest import (
    MINI,
    ODD,
    REPOSITORY,
    Checkout,
    Project,
    Ran,
    copy_project,
    sha256,
    snapshot,
    which,
)

BINDINGS = '''"""Like upstream's module: it loads the library and declares its functions."""

import ctypes
from pathlib import Path


def load_shared_library(name, folder):
    ctypes.CDLL(str(folder / "libggml.so"))
    return ctypes.CDLL(str(folder / f"lib{name}.so"))


_lib = load_shared_library("llama", Path(__file__).parent / "lib")


def ctypes_function(name, argtypes, restype):
    function = getattr(_lib, name)
    function.restype = restype
    return lambda _: function


@ctypes_function("llama_answer", [], ctypes.c_int)
def llama_answer() -> int: ...
'''


@dataclass(frozen=True)
class Locked:
    """A git checkout of the project in which the miniature is the locked release 0.3.16."""

    project: Project

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def dist(self) -> Path:
        return self.root / "dist"

    @property
    def wheel(self) -> Path:
        (found,) = (self.root / "wheels" / "cpu").glob("*.whl")
        return found

    @property
    def page(self) -> str:
        return (self.dist / "RELEASE.md").read_text(encoding="utf-8")

    def nox(self, session: str, *options: str) -> Ran:
        return self.project.nox(session, "--target", "cpu", *options)

    def release(self, *options: str) -> Ran:
        return self.nox("release", *options)

    def report(self) -> str:
        """The path of a report in which the wheel passes smoke on the CPU; ops is imported."""
        self.nox("verify").well()
        digest = sha256(self.wheel.read_bytes())
        named = {"file": self.wheel.name, "sha256": digest, "target": "cpu"}
        checks = [check for check in fakes.smoke_checks() if check["id"] not in fakes.ON_A_GPU]
        on_cpu = {"device": "cpu", "capability": None, "driver": None, "checks": checks}
        text = report_file.text(fakes.smoke_report(**named, **on_cpu))
        smoke, ops = (self.root.parent / f"{session}-report.json" for session in ("smoke", "ops"))
        smoke.write_text(text, encoding="utf-8")
        report = fakes.ops_report(cuda=False, **named)
        ops.write_text(report_file.text(report, report_file.OPS), encoding="utf-8")
        self.nox("ops", "--report", str(ops)).well()
        return str(smoke)

    def record(self, name: str) -> dict[str, Any]:
        text = (self.dist / "cpu" / f"{name}.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)[name]
        return found


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.invalid"]
    done = subprocess.run(
        ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def lock(root: Path, cache: Path, change: Callable[[Path], None] = lambda _: None) -> None:
    """Lock the small upstream in the project's copy, and make that a clean git checkout."""
    source = root.parent / "llama_cpp_python-0.3.16"
    shutil.copytree(MINI, source)
    init = source / "llama_cpp" / "__init__.py"
    text = init.read_text(encoding="utf-8").replace("0.0.1", "0.3.16")
    init.write_text(f"{text}\n\nfrom .llama_cpp import *\n", encoding="utf-8")
    (source / "llama_cpp" / "llama_cpp.py").write_text(BINDINGS, encoding="utf-8")
    (source / "llama_cpp" / "lib" / "libllama.so").unlink()
    change(source)
    downloads = cache / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    sdist = downloads / "llama_cpp_python-0.3.16.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(source, source.name)
    known = root / "sessions" / "data" / "knowledge" / "upstream.toml"
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    row = locking.upstream_row(sdist, "0.3.16")
    row["requires"] = project.get("dependencies", [])  # this sdist has no PKG-INFO
    locking.put(known, "release", "0.3.16", row)
    facts = root / "sessions" / "data" / "knowledge" / "sdists.toml"
    text = facts.read_text(encoding="utf-8")
    digest = sha256(sdist.read_bytes())
    facts.write_text(
        re.sub(r'(\[sdist."0.3.16"\][^\[]*sha256 = )"\w+"', rf'\1"{digest}"', text, flags=re.S),
        encoding="utf-8",
    )
    shutil.copy(REPOSITORY / ".gitignore", root)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all of it")


def fresh(built: Checkout, folder: Path, change: Callable[[Path], None] = lambda _: None) -> Locked:
    """A new project with the venvs and caches of the test session."""
    root = folder / ODD
    copy_project(root)
    lock(root, Path(built.project.env["BLACKWHEEL_CACHE"]), change)
    (root / ".nox").symlink_to(built.project.root / ".nox")
    with (root / ".git" / "info" / "exclude").open("a", encoding="utf-8") as ignored:
        ignored.write(".nox\n")  # it is a link here, which "/.nox/" does not match
    return Locked(Project(root, built.project.env))


@pytest.fixture(scope="module")
def released(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Locked:
    """Released once. A test that changes it restores it."""
    which("git", built.project.env["PATH"])
    locked = fresh(built, tmp_path_factory.mktemp("released"))
    locked.release("--report", locked.report()).well()
    return locked


def test_a_tested_wheel_is_released_with_its_documents(released: Locked) -> None:
    there = {path.name for path in (released.dist / "cpu").iterdir() if path.is_file()}
    name = released.wheel.name
    assert there == {
        name, f"{name}.metadata", "WHEEL.md", "WHEEL.es.md", "report.html", "SHA256SUMS",
        "provenance.intoto.json", "sbom.cdx.json", "smoke-cpu.json", "ops-cpu.json", "wheel.json",
        "facts.json",
        "verify.json", "steps.json", "gate.json", "release.json",
    }  # fmt: skip
    assert "## cpu: RELEASE\n" in released.page
    assert "UNTESTED" not in released.page
    words = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(words, cwd=released.dist / "cpu", check=True, capture_output=True)


def test_the_sbom_of_the_release_is_the_one_in_the_wheel(released: Locked) -> None:
    with zipfile.ZipFile(released.wheel) as archive:
        (member,) = [name for name in archive.namelist() if "/sboms/b" in name]
        text = archive.read(member)
    assert member.endswith(".dist-info/sboms/blackwheel.cdx.json")
    assert (released.dist / "cpu" / "sbom.cdx.json").read_bytes() == text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    bill = json.loads(text)
    names = [part["name"] for part in bill["components"]]
    assert {"llama.cpp", "ggml", "libstdc++", "libgomp", "gcc"} <= set(names)


def test_the_provenance_names_this_checkout(released: Locked) -> None:
    statement = json.loads((released.dist / "cpu" / "provenance.intoto.json").read_text())
    head = git(released.root, "rev-parse", "HEAD")
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "blackwheel", "digest": {"gitCommit": head}} in dependencies
    assert statement["subject"][0]["digest"]["sha256"] == released.record("wheel")["sha256"]


def test_no_document_names_a_folder_of_this_machine(released: Locked) -> None:
    for path in (released.dist / "cpu").iterdir():
        if path.is_file() and path.suffix != ".whl":
            text = path.read_text(encoding="utf-8")
            for folder in (released.root, Path(released.project.env["BLACKWHEEL_CACHE"])):
                assert str(folder) not in text, path.name
                assert json.dumps(str(folder))[1:-1] not in text, path.name


def digests(folder: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in snapshot(folder).items()}


def test_a_second_release_gives_the_same_bytes(released: Locked) -> None:
    before = digests(released.dist)
    run = released.release().well()
    assert "verify: up to date" in run.output
    assert digests(released.dist) == before


def test_a_changed_wheel_in_dist_is_refused(released: Locked) -> None:
    path = released.dist / "cpu" / released.wheel.name
    good = path.read_bytes()
    path.write_bytes(good + b"!")
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason")
    assert f"{path.name}: changed since it was written" in run.output
    assert path.read_bytes() == good + b"!"
    released.release("--fresh").well()
    assert path.read_bytes() == good


def test_a_checkout_with_changes_releases_nothing(released: Locked) -> None:
    stray = released.root / "notes.txt"
    stray.write_text("to do\n")
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason")
    assert "?? notes.txt" in run.output
    stray.unlink()
    released.release().well()


def test_a_second_build_elsewhere_gives_the_same_bytes(released: Locked) -> None:
    before = released.wheel.read_bytes()
    run = released.release("--reproduce").well()
    assert "reproduce: a second build, from nothing and in another folder" in run.output
    assert "from the cache" not in run.output.split("a second time, from nothing", 1)[1]
    assert released.wheel.read_bytes() == before
    assert not (released.root / "build" / "cpu" / "again").exists()
    # The result is kept for the same wheel.
    assert "reproduce: a second build" in released.release().well().output


def test_pip_installs_the_release_from_its_index(released: Locked, tmp_path: Path) -> None:
    python = which("python3.11", released.project.env["PATH"])
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    words = ["install", "--no-deps", "--only-binary", "llama-cpp-python", "--index-url"]
    pip = [str(venv / "bin" / "pip"), "--isolated", "--disable-pip-version-check"]
    installed = servers.Venv(venv / "bin" / "python")
    with servers.static(released.dist) as host:
        where = f"{host.url}cpu/simple/"
        servers.succeeded(installed.run(*pip, *words, where, "llama-cpp-python==0.3.16"))
    code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.llama_answer())"
    assert installed.output(code).startswith("0.3.16 ")


def test_a_wheel_that_is_not_reproducible_names_the_member_that_differs(
    built: Checkout, tmp_path: Path
) -> None:
    def change(source: Path) -> None:
        lists = source / "vendor" / "llama.cpp" / "CMakeLists.txt"
        text = lists.read_text(encoding="utf-8")
        once = 'string(RANDOM LENGTH 20 once)\nadd_compile_definitions(ONCE="${once}")\n'
        lists.write_text(text.replace("add_subdirectory", f"{once}add_subdirectory", 1))
        code = source / "vendor" / "llama.cpp" / "src" / "llama.cpp"
        text = code.read_text(encoding="utf-8")
        code.write_text(f'{text}\nextern "C" const char *llama_once(void) {{ return ONCE; }}\n')

    locked = fresh(built, tmp_path, change)
    run = locked.release("--report", locked.report(), "--reproduce").badly("NOT RELEASABLE: cpu")
    assert "reproduce: a second build gave another wheel" in run.output
    assert re.search(r"llama_cpp/lib/libllama.so: section .*texts of its own", run.output)
    assert (locked.root / "build" / "cpu" / "again" / "checkout" / "wheels").exists()
    assert not (locked.dist / "cpu").exists()


def test_a_wheel_of_a_source_checkout_is_not_released(mini: Checkout) -> None:
    run = mini.project.nox("release", *mini.options)
    run.badly("NOT RELEASABLE", mini.label)
    assert "source: not the pinned upstream source" in run.output
    assert "the version of blackwheel is unknown" in run.output  # no git here
