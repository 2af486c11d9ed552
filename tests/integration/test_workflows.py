"""GitHub's workflows: linters, the matrix of jobs, and the shell of single steps."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from sessions.command_line import parse_options, session_order
from sessions.lock import main_lock
from sessions.shared import disk
from sessions.shared.errors import Problem
from tests import tiny
from tests.integration.conftest import REPOSITORY, Checkout, Project, copy_project
from tests.unit.test_docs import sessions

GITHUB = REPOSITORY / ".github"
NAMES = sorted(path.name for path in (GITHUB / "workflows").iterdir())
TARGETS = tomllib.loads((REPOSITORY / "targets.toml").read_text(encoding="utf-8"))
TARGETS.pop("defaults")  # what targets inherit
RELEASED = [name for name in TARGETS if name != "seed"]  # seed is only for comparisons
BIN = Path(sys.executable).parent
LINTERS = {
    "actionlint": [str(BIN / "actionlint"), "-shellcheck", str(BIN / "shellcheck")],
    "zizmor": [str(BIN / "zizmor"), "--offline", "--no-progress", ".github/workflows"],
}
KEPT = "        with:\n          persist-credentials: false\n"
READ = "\n      contents: read"
CHECKS = (GITHUB / "workflows" / "checks.yml").read_text(encoding="utf-8")
PIN = re.findall(r"@\w{40} # ", CHECKS)[0]  # an action's commit


def text_of(name: str) -> str:
    return (GITHUB / "workflows" / name).read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(GITHUB, tmp_path / ".github")
    (tmp_path / ".git").mkdir()  # actionlint needs it to find the top folder
    return tmp_path


def lint(linter: str, root: Path) -> tuple[int, str]:
    done = subprocess.run(
        LINTERS[linter], cwd=root, env={"HOME": str(root)}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("linter", LINTERS)
def test_the_linters_find_nothing(linter: str, copy: Path) -> None:
    code, output = lint(linter, copy)
    assert code == 0, output


@pytest.mark.parametrize(
    ("linter", "name", "old", "new", "message"),
    [
        ("actionlint", "release.yml", "needs: plan\n", "needs: plans\n", "plans"),
        ("actionlint", "release.yml", "      runner: ", "      runners: ", '"runners" is not'),
        ("actionlint", "release.yml", "outputs.jobs)", "outputs.rows)", '"rows" is not defined'),
        ("actionlint", "target.yml", "needs: smoke", "need: smoke", 'unexpected key "need"'),
        ("actionlint", "target.yml", '--targets "$TARGET"', "--targets $TARGET", "SC2086"),
        ("actionlint", "checks.yml", "ubuntu-24.04", "ubuntu-24.40", "ubuntu-24.40"),
        ("zizmor", "target.yml", '"$TARGET"', "${{ inputs.target }}", "template-injection"),
        ("zizmor", "checks.yml", KEPT, "", "artipacked"),
        ("zizmor", "checks.yml", PIN, "@", "unpinned-uses"),
        ("zizmor", "checks.yml", READ, " write-all", "excessive-permissions"),
        ("zizmor", "checks.yml", "  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
)
def test_the_linters_find_a_planted_mistake(
    linter: str, name: str, old: str, new: str, message: str, copy: Path
) -> None:
    path = copy / ".github" / "workflows" / name
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    code, output = lint(linter, copy)
    assert code != 0
    assert message in output


def matrix(targets: str, runners: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GITHUB / "matrix.py"), targets, runners]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_jobs_are_the_targets_on_each_system() -> None:
    rows = json.loads(matrix("", "").stdout)
    systems = ["linux", "windows", "windows-vs2026"]
    assert [(r["target"], r["system"]) for r in rows] == [(t, s) for t in RELEASED for s in systems]
    inputs = set(re.findall(r"^      (\w+): \{ type", text_of("target.yml"), re.MULTILINE))
    assert {*rows[0], "version"} == inputs


def test_matrix_tests_each_target_where_its_gpu_is() -> None:
    rows = json.loads(matrix("rtx50-fp4 hopper cpu", "linux-sm120 windows-sm90").stdout)
    runners = {(r["target"], r["system"]): json.loads(r["runner"] or "[]") for r in rows}
    assert runners == {
        ("rtx50-fp4", "linux"): ["self-hosted", "Linux", "X64", "gpu", "sm120"],
        ("rtx50-fp4", "windows"): [],
        ("rtx50-fp4", "windows-vs2026"): [],
        ("hopper", "linux"): [],
        ("hopper", "windows"): ["self-hosted", "Windows", "X64", "gpu", "sm90"],
        ("hopper", "windows-vs2026"): ["self-hosted", "Windows", "X64", "gpu", "sm90"],
        ("cpu", "linux"): ["ubuntu-24.04"],
        ("cpu", "windows"): ["windows-2025-vs2026"],
        ("cpu", "windows-vs2026"): ["windows-2022"],
    }


def test_two_wheels_of_one_name_are_never_both_released() -> None:
    rows = json.loads(matrix("", "").stdout)
    released = [(r["target"], r["system"].split("-")[0]) for r in rows if r["release"]]
    assert len(released) == len(set(released)) == 2 * len(RELEASED)


@pytest.mark.parametrize(("targets", "runners"), [("rtx5", ""), ("rtx50", "linux-rtx50")])
def test_an_unknown_name_starts_no_job(targets: str, runners: str) -> None:
    done = matrix(targets, runners)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Unknown: " in done.stderr
    assert "rtx50-fp4" in done.stderr
    assert "linux-sm120" in done.stderr


def commands(text: str) -> list[list[str]]:
    """The words after ``noxfile.py`` of every command."""
    joined = text.replace("\\\n", " ").replace('${VERSION:+--version "$VERSION"}', "--version V")
    return [shlex.split(line) for line in re.findall(r"python3? noxfile\.py (.*)$", joined, re.M)]


def unknown(text: str) -> list[str]:
    """The sessions and options that do not exist."""
    found = []
    for words in commands(text):
        dashes = words.index("--") if "--" in words else len(words)
        assert words[0] == "-s"
        found += sorted(set(words[1:dashes]) - sessions())
        try:
            given = [w for w in words[dashes + 1 :] if not w.startswith(("dist-", "${"))]
            parse_options.parse(
                given, [s for s in words[1:dashes] if s in session_order.REQUIRES] or None
            )
        except Problem as problem:
            found.append(str(problem))
    return found


def test_every_session_and_option_in_a_workflow_exists() -> None:
    text = "".join(map(text_of, NAMES))
    lines = [line for line in text.splitlines() if "noxfile" in line]
    assert len(commands(text)) == len(lines) == 8
    assert unknown(text) == []
    assert unknown(text.replace("-s lint", "-s lints")) == ["lints"]
    assert "--nonsense" in str(unknown(text.replace("--targets ", "--nonsense ")))
    assert "--sign" in str(unknown(text.replace("--targets ", "--sign ")))


def test_every_artifact_that_a_job_downloads_is_uploaded() -> None:
    def names(action: str) -> set[str]:
        steps = re.split(r"\n +- ", text_of("target.yml") + text_of("release.yml"))
        found = [re.search(r"(?:name|pattern): (.+)", step) for step in steps if action in step]
        return {match[1].split("-")[0] for match in found if match}

    assert names("upload-artifact") == {"bundle", "wheel", "report", "dist"}
    assert names("download-artifact") == names("upload-artifact")


def test_a_release_uses_no_cache() -> None:
    """The linter's check of this does not read reusable workflows."""
    uses = re.findall(r"(.*)\n +uses: actions/cache@", "".join(map(text_of, NAMES)))
    assert uses == ["      - if: github.ref_type != 'tag'"]


def handed_on() -> list[str]:
    """The files that the job that builds passes to the job that releases."""
    found = re.findall(r"name: wheel-.*\n +path: \|\n((?: +\S+\n)+?) +if-", text_of("target.yml"))
    return str(found[0]).split()


@pytest.mark.parametrize(
    "path",
    [
        "wheels/cpu+py3.12/llama_cpp_python-0.3.16-cp312-cp312-win_amd64.whl",
        "wheels/cpu+py3.12/wheel.json",
        "build/cpu+py3.12/given/llama_cpp_python-0.3.16-12345678/verify.json",
    ],
)
def test_the_wheels_of_other_pythons_are_passed_to_the_release(path: str) -> None:
    assert any(PurePosixPath(path).match(pattern) for pattern in handed_on())


def test_the_files_that_are_passed_on_make_a_second_build_unnecessary(mini: Checkout) -> None:
    """The release runs in a fresh checkout at the same path, with these files."""
    mini.nox().well()
    there = {
        path.relative_to(mini.project.root): path.read_bytes()
        for pattern in handed_on()
        for path in mini.project.root.glob(pattern)
    }
    assert mini.wheel.relative_to(mini.project.root) in there
    root = mini.project.root
    venv = (root / ".nox").readlink()
    root.rename(root.with_name("gone"))
    copy_project(root)
    (root / ".nox").symlink_to(venv)
    for path, data in there.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    assert "wheel: up to date" in mini.nox().well().output


GH = """\
#!/bin/sh
echo "$@" >> "$CALLS"
"""


def run_of(name: str, step: str) -> str:
    """The shell script of a step."""
    text = text_of(name)
    block = text[text.index(f"- name: {step}") :]
    (script,) = re.findall(r"        run: \|\n((?:          .*\n|\n)+)", block)[:1]
    return textwrap.dedent(script)


def shell(script: str, folder: Path, env: dict[str, str]) -> str:
    """Run a script as GitHub does; its output."""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> str:
    """Run git in a repository; its output."""
    whole = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y", *words]
    return subprocess.run(whole, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def runner(tmp_path: Path) -> dict[str, str]:
    """The environment of a step: GitHub's variables, a repository, programs that record calls."""
    remote, programs = tmp_path / "remote.git", tmp_path / "bin"
    remote.mkdir()
    git(remote, "init", "-q", "--bare")
    programs.mkdir()
    noted = '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >> "$CALLS"\n'
    texts = {"gh": GH, "curl": noted, "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "GITHUB_REF_NAME": "v1", "GITHUB_SHA": "c" * 40, "GITHUB_REPOSITORY": "a/b",
        "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_API_URL": "https://api.github.com",
        "GITHUB_SERVER_URL": "https://github.com", "GITHUB_RUN_ID": "7", "GH_TOKEN": "secret",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://x-access-token:secret@github.com/a/b",
    }  # fmt: skip


def test_a_tag_ends_in_an_index_that_keeps_the_releases_of_earlier_tags(
    project: Project, runner: dict[str, str], tmp_path: Path
) -> None:
    def tag(name: str, wheel_tag: str) -> set[str]:
        dist = project.root / f"dist-cpu-{name}"
        disk.mark(dist)
        tiny.release(dist, "cpu", None, tag=wheel_tag)
        tiny.indexed(dist)
        env = {**project.env, **runner, "GITHUB_REF_NAME": name}
        shell(run_of("release.yml", "The index, on the branch"), project.root, env)
        for made in ("pages", "site", dist.name):
            shutil.rmtree(project.root / made)
        listed = git(tmp_path / "remote.git", "ls-tree", "-r", "--name-only", "gh-pages")
        return set(listed.splitlines())

    first = tag("v1", tiny.TAG)
    assert {"index.html", ".nojekyll", "contents.json", "cpu/simple/index.html"} <= first
    assert f"cpu-0.3.16-linux-x86_64/llama_cpp_python-0.3.16-{tiny.TAG}.whl" in first
    second = tag("v2", "cp311-cp311-win_amd64")
    assert first < second
    assert "cpu-0.3.16-windows-x86_64/release.json" in second
    assert git(tmp_path / "remote.git", "log", "--format=%s", "gh-pages").split() == ["v2", "v1"]


def test_a_new_upstream_release_ends_in_one_pull_request(
    runner: dict[str, str], tmp_path: Path
) -> None:
    knowledge = REPOSITORY / "sessions" / "data" / "knowledge" / "sdists.toml"
    which = run_of("upstream.yml", "Which is new")

    def week(number: int, *, new: bool) -> tuple[Path, str]:
        checkout = tmp_path / f"week-{number}"
        path = checkout / "sessions" / "data" / "knowledge" / "sdists.toml"
        path.parent.mkdir(parents=True)
        shutil.copyfile(knowledge, path)
        git(checkout, "init", "-q", "-b", "main")
        git(checkout, "add", "-A")
        git(checkout, "commit", "-q", "-m", "x")
        if new:
            row = tomllib.loads(path.read_text(encoding="utf-8"))["sdist"]["0.3.36"]
            main_lock.put(path, "sdist", "9.9.9", row)
        output = tmp_path / f"output-{number}"
        shell(which, checkout, {**runner, "GITHUB_OUTPUT": str(output)})
        return checkout, output.read_text()

    assert week(1, new=False)[1] == "version=\n"
    checkout, message = week(2, new=True)
    assert message == "version=9.9.9\n"
    shell(run_of("upstream.yml", "The pull request"), checkout, {**runner, "VERSION": "9.9.9"})
    remote = tmp_path / "remote.git"
    assert git(remote, "log", "-1", "--format=%s", "lock-9.9.9") == "Lock llama-cpp-python 9.9.9\n"
    assert '[sdist."9.9.9"]' in git(
        remote, "show", "lock-9.9.9:sessions/data/knowledge/sdists.toml"
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "https://api.github.com/repos/a/b/pulls" in calls
    asked = json.loads(calls[-1])
    assert (asked["head"], asked["base"]) == ("lock-9.9.9", "main")
    assert asked["body"].endswith("https://github.com/a/b/actions/runs/7")
    assert week(3, new=True)[1] == "version=\n"  # its pull request is open


def test_a_tag_ends_in_releases_whose_assets_are_the_files(
    runner: dict[str, str], tmp_path: Path
) -> None:
    for target, system in (("rtx50", "linux"), ("rtx50", "windows"), ("cpu", "linux")):
        tiny.release(tmp_path / f"dist-{target}-{system}", target, None)
    script = run_of("release.yml", "The files, as assets")
    shell(script, tmp_path, runner)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[2] for call in calls] == [
        "v1-cpu-linux", "v1-rtx50-linux", "v1-rtx50-windows",
    ]  # fmt: skip
    assert all(".whl" in call and "release.json" in call for call in calls)
    assert ".zip" not in "".join(calls)
    with pytest.raises(AssertionError, match="no match"):  # nothing to release is an error
        shell(script, tmp_path / "bin", runner)
