"""``release`` end to end: a locked miniature upstream, tested, judged, written, served, installed.

That it computes is taken from a report of the payload's own making; no GPU and no model is here.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import shutil
import subprocess
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sessions.lock import main_lock as locking
from sessions.payload import report_file
from tests import fakes
from tests.integration.conftest import (
    MINI,
    ODD,
    REPOSITORY,
    Checkout,
    Project,
    Ran,
    copy_project,
    snapshot,
    which,
)

BINDINGS = '''"""As upstream has it: the library, and what is looked up in it."""

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
        """The path of a report that says that the wheel here computes on the CPU."""
        self.nox("verify").well()
        gone = fakes.ON_A_GPU
        text = report_file.text(
            fakes.smoke_report(
                file=self.wheel.name,
                sha256=hashlib.sha256(self.wheel.read_bytes()).hexdigest(),
                target="cpu",
                device="cpu",
                capability=None,
                driver=None,
                checks=[check for check in fakes.smoke_checks() if check["id"] not in gone],
            )
        )
        path = self.root.parent / "smoke-report.json"
        path.write_text(text, encoding="utf-8")
        self.operators()
        return str(path)

    def operators(self) -> None:
        """Take a report that says that every operator of the wheel here is right."""
        named = {
            "file": self.wheel.name,
            "sha256": hashlib.sha256(self.wheel.read_bytes()).hexdigest(),
            "target": "cpu",
        }
        path = self.root.parent / "ops-report.json"
        made = fakes.ops_report(cuda=False, **named)
        path.write_text(report_file.text(made, report_file.OPS), encoding="utf-8")
        self.nox("ops", "--report", str(path)).well()

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
    """Make the miniature the locked sdist of the project's copy, and that a clean checkout."""
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
    told = facts.read_text(encoding="utf-8")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    facts.write_text(
        re.sub(r'(\[sdist."0.3.16"\][^\[]*sha256 = )"\w+"', rf'\1"{digest}"', told, flags=re.S),
        encoding="utf-8",
    )
    shutil.copy(REPOSITORY / ".gitignore", root)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "all of it")


def fresh(built: Checkout, folder: Path, change: Callable[[Path], None] = lambda _: None) -> Locked:
    """A project of its own, with the session's venvs and caches."""
    root = folder / ODD
    copy_project(root)
    lock(root, Path(built.project.env["BLACKWHEEL_CACHE"]), change)
    (root / ".nox").symlink_to(built.project.root / ".nox")
    with (root / ".git" / "info" / "exclude").open("a", encoding="utf-8") as ignored:
        ignored.write(".nox\n")  # a link here, which "/.nox/" does not match
    return Locked(Project(root, built.project.env))


@pytest.fixture(scope="module")
def released(built: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Locked:
    """Released once. A test that changes it puts it right again."""
    which("git", built.project.env["PATH"])
    made = fresh(built, tmp_path_factory.mktemp("released"))
    made.release("--report", made.report()).well()
    return made


def test_what_is_tested_is_released_with_its_documents(released: Locked) -> None:
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


def test_the_bill_of_materials_is_in_the_wheel_and_says_what_it_is_of(released: Locked) -> None:
    with zipfile.ZipFile(released.wheel) as archive:
        (member,) = [name for name in archive.namelist() if "/sboms/b" in name]
        text = archive.read(member)
    assert member.endswith(".dist-info/sboms/blackwheel.cdx.json")
    assert (released.dist / "cpu" / "sbom.cdx.json").read_bytes() == text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    bill = json.loads(text)
    names = [part["name"] for part in bill["components"]]
    assert {"llama.cpp", "ggml", "libstdc++", "libgomp", "gcc"} <= set(names)


def test_a_bill_that_was_tampered_with_is_found_by_verify(released: Locked, tmp_path: Path) -> None:
    copy = tmp_path / released.wheel.name
    with zipfile.ZipFile(released.wheel) as archive, zipfile.ZipFile(copy, "w") as other:
        for info in archive.infolist():
            data = archive.read(info)
            if "/sboms/" in info.filename:
                data = data.replace(b'"ggml"', b'"ggnl"')
            other.writestr(info, data)
    run = released.nox("verify", "--wheel", str(copy))
    run.badly("sbom: the SBOM is missing or wrong", "ggml: in the wheel")


def test_the_provenance_is_that_of_this_checkout(released: Locked) -> None:
    told = json.loads((released.dist / "cpu" / "provenance.intoto.json").read_text())
    head = git(released.root, "rev-parse", "HEAD")
    dependencies = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "blackwheel", "digest": {"gitCommit": head}} in dependencies
    assert told["subject"][0]["digest"]["sha256"] == released.record("wheel")["sha256"]
    assert str(released.root) not in json.dumps(told, ensure_ascii=False)


def test_no_paper_names_a_folder_of_this_machine(released: Locked) -> None:
    for path in (released.dist / "cpu").iterdir():
        if path.is_file() and path.suffix != ".whl":
            text = path.read_text(encoding="utf-8")
            for folder in (released.root, Path(released.project.env["BLACKWHEEL_CACHE"])):
                assert str(folder) not in text, path.name
                assert json.dumps(str(folder))[1:-1] not in text, path.name


def test_again_gives_the_same_bytes(released: Locked) -> None:
    before = {name: digest for name, (digest, _) in snapshot(released.dist).items()}
    run = released.release().well()
    assert "verify: up to date" in run.output
    after = {name: digest for name, (digest, _) in snapshot(released.dist).items()}
    assert after == before


def test_a_paper_that_was_tampered_with_is_noticed(released: Locked) -> None:
    card = released.dist / "cpu" / "WHEEL.md"
    good = card.read_text(encoding="utf-8")
    card.write_text(good.replace("UNTESTED", "tested") + "and much faster\n", encoding="utf-8")
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason")
    assert "WHEEL.md: changed since it was written" in run.output
    assert "much faster" in card.read_text(encoding="utf-8")
    released.release("--fresh").well()
    assert card.read_text(encoding="utf-8") == good


def test_a_page_of_the_index_that_was_tampered_with_is_noticed(released: Locked) -> None:
    page = released.dist / "cpu" / "simple" / "llama-cpp-python" / "index.html"
    good = page.read_bytes()
    page.write_bytes(good.replace(b"../../", b"https://evil.example/"))
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason")
    assert "cpu/simple/llama-cpp-python/index.html: changed since it was written" in run.output
    released.release("--fresh").well()
    assert page.read_bytes() == good


def test_a_release_that_is_killed_as_it_swaps_dist_leaves_the_last_one(released: Locked) -> None:
    before = {name: digest for name, (digest, _) in snapshot(released.dist).items()}
    released.dist.rename(released.root / ".dist.old")
    shutil.copytree(released.root / ".dist.old", released.root / ".dist.part")
    (released.root / ".dist.part" / "RELEASE.md").unlink()
    released.release().well()
    assert {name: digest for name, (digest, _) in snapshot(released.dist).items()} == before
    assert not list(released.root.glob(".dist*"))


def test_a_wheel_in_dist_that_was_swapped_is_noticed(released: Locked) -> None:
    wheel = released.dist / "cpu" / released.wheel.name
    wheel.write_bytes(wheel.read_bytes() + b"!")
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason")
    assert f"{wheel.name}: changed since it was written" in run.output
    released.release("--fresh").well()


def test_a_record_that_was_tampered_with_passes_for_none(released: Locked) -> None:
    path = released.root / "build" / "cpu" / "verify.json"
    good = json.loads(path.read_text(encoding="utf-8"))["verify"]
    text = path.read_text(encoding="utf-8").replace("libraries, each once", "libraries, all good")
    path.write_text(text, encoding="utf-8")
    run = released.release().well()
    assert "Reading llama_cpp_python" in run.output  # it is tested anew
    again = json.loads(path.read_text(encoding="utf-8"))["verify"]
    assert (again["groups"], again["sha256"]) == (good["groups"], good["sha256"])


def test_a_report_that_was_tampered_with_is_noticed(released: Locked) -> None:
    path = released.root / "build" / "cpu" / "smoke-report-cpu.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"1e-05", b"1e-06"))
    run = released.release().badly("NOT RELEASABLE: cpu, for 1 reason", "-s smoke")
    assert "its digest is not that of its content" in run.output
    assert (released.dist / "cpu").exists()  # the last good one
    path.write_bytes(good)
    released.release().well()


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
    # Of the same wheel it is known from now on.
    assert "reproduce: a second build" in released.release().well().output


def test_it_is_installed_from_the_index_by_one_pip_line(
    released: Locked, tmp_path: Path, served: str
) -> None:
    python = which("python3.11", released.project.env["PATH"])
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    words = ["install", "--no-deps", "--only-binary", "llama-cpp-python", "--index-url"]
    words += [f"{served}/cpu/simple/", "llama-cpp-python==0.3.16"]
    pip = [str(venv / "bin" / "pip"), "--isolated", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.llama_answer())"
    ran = subprocess.run(
        [str(venv / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith("0.3.16 ")


@pytest.fixture
def served(released: Locked) -> Iterator[str]:
    """The address of a web server that has nothing but dist/."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(released.dist))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_wheel_that_cannot_be_made_again_says_which_member_differs(
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

    made = fresh(built, tmp_path, change)
    run = made.release("--report", made.report(), "--reproduce").badly("NOT RELEASABLE: cpu")
    assert "reproduce: a second build gave another wheel" in run.output
    assert re.search(r"llama_cpp/lib/libllama.so: section .*texts of its own", run.output)
    assert (made.root / "build" / "cpu" / "again" / "checkout" / "wheels").exists()
    assert not (made.dist / "cpu").exists()


def test_a_wheel_of_ones_own_checkout_is_not_released(mini: Checkout) -> None:
    run = mini.project.nox("release", *mini.options)
    run.badly("NOT RELEASABLE", mini.label)
    assert "source: not the pinned upstream source" in run.output
    assert "the version of blackwheel is unknown" in run.output  # no git here
