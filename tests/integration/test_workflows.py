"""GitHub's workflows, which no test can run: what can be known of them by reading."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from sessions.shared import graph, options
from sessions.shared.errors import Problem
from tests import tiny
from tests.integration.conftest import REPOSITORY, Checkout, copy_project
from tests.unit.test_docs import sessions

GITHUB = REPOSITORY / ".github"
NAMES = sorted(path.name for path in (GITHUB / "workflows").iterdir())
TARGETS = tomllib.loads((REPOSITORY / "targets.toml").read_text(encoding="utf-8"))
TARGETS.pop("defaults")  # what targets inherit
RELEASED = [name for name in TARGETS if name != "seed"]  # that one is only compared with
BIN = Path(sys.executable).parent
LINTERS = {
    "actionlint": [str(BIN / "actionlint"), "-shellcheck", str(BIN / "shellcheck")],
    "zizmor": [str(BIN / "zizmor"), "--offline", "--no-progress", ".github/workflows"],
}
KEPT = "        with:\n          persist-credentials: false\n"
READ = "\n      contents: read"


def text_of(name: str) -> str:
    return (GITHUB / "workflows" / name).read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(GITHUB, tmp_path / ".github")
    (tmp_path / ".git").mkdir()  # by which actionlint knows the top folder
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
    ("linter", "name", "old", "new", "said"),
    [
        ("actionlint", "release.yml", "needs: plan\n", "needs: plans\n", "plans"),
        (
            "actionlint",
            "release.yml",
            "      runner: ",
            "      runners: ",
            '"runners" is not defined',
        ),
        ("actionlint", "release.yml", "outputs.jobs)", "outputs.rows)", '"rows" is not defined'),
        ("actionlint", "target.yml", "needs: smoke", "need: smoke", 'unexpected key "need"'),
        ("actionlint", "target.yml", '--target "$TARGET"', "--target $TARGET", "SC2086"),
        ("actionlint", "checks.yml", "ubuntu-24.04", "ubuntu-24.40", "ubuntu-24.40"),
        ("zizmor", "target.yml", '"$TARGET"', "${{ inputs.target }}", "template-injection"),
        ("zizmor", "checks.yml", KEPT, "", "artipacked"),
        ("zizmor", "checks.yml", READ, " write-all", "excessive-permissions"),
        ("zizmor", "checks.yml", "  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
)
def test_the_linters_find_a_planted_mistake(
    linter: str, name: str, old: str, new: str, said: str, copy: Path
) -> None:
    path = copy / ".github" / "workflows" / name
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    code, output = lint(linter, copy)
    assert code != 0
    assert said in output


def test_an_action_is_pinned_by_its_commit(copy: Path) -> None:
    path = copy / ".github" / "workflows" / "checks.yml"
    path.write_text(re.sub(r"@\w{40} # ", "@", path.read_text(encoding="utf-8")), encoding="utf-8")
    code, output = lint("zizmor", copy)
    assert code != 0
    assert "unpinned-uses" in output


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
def test_a_name_that_is_none_starts_no_job(targets: str, runners: str) -> None:
    done = matrix(targets, runners)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Unknown: " in done.stderr
    assert "rtx50-fp4" in done.stderr
    assert "linux-sm120" in done.stderr


def commands(text: str) -> list[list[str]]:
    """The words after ``noxfile.py`` of every command, as a shell with no VERSION has them."""
    joined = text.replace("\\\n", " ").replace('${VERSION:+--version "$VERSION"}', "--version V")
    return [shlex.split(line) for line in re.findall(r"python3? noxfile\.py (.*)$", joined, re.M)]


def unknown(text: str) -> list[str]:
    """Sessions and options that there are not."""
    found = []
    for words in commands(text):
        dashes = words.index("--") if "--" in words else len(words)
        assert words[0] == "-s"
        found += sorted(set(words[1:dashes]) - sessions())
        try:
            given = [w for w in words[dashes + 1 :] if not w.startswith(("dist-", "${"))]
            options.parse(given, [s for s in words[1:dashes] if s in graph.REQUIRES] or None)
        except Problem as problem:
            found.append(str(problem))
    return found


def test_every_session_and_option_is_one() -> None:
    text = "".join(map(text_of, NAMES))
    lines = [line for line in text.splitlines() if "noxfile" in line]
    assert len(commands(text)) == len(lines) == 7
    assert unknown(text) == []
    assert unknown(text.replace("-s lint", "-s lints")) == ["lints"]
    assert "--nonsense" in str(unknown(text.replace("--target ", "--nonsense ")))
    assert "--sign" in str(unknown(text.replace("--target ", "--sign ")))


def test_what_a_job_takes_another_hands_on() -> None:
    def names(action: str) -> set[str]:
        steps = re.split(r"\n +- ", text_of("target.yml") + text_of("release.yml"))
        found = [re.search(r"(?:name|pattern): (.+)", step) for step in steps if action in step]
        return {match[1].split("-")[0] for match in found if match}

    assert names("upload-artifact") == {"bundle", "wheel", "report", "dist"}
    assert names("download-artifact") == names("upload-artifact")


def test_what_is_released_comes_from_no_cache() -> None:
    """The linter of it does not look into a workflow that another calls."""
    uses = re.findall(r"(.*)\n +uses: actions/cache@", "".join(map(text_of, NAMES)))
    assert uses == ["      - if: github.ref_type != 'tag'"]


def test_what_is_handed_on_is_enough_to_compile_nothing_again(mini: Checkout) -> None:
    """The release is made in a fresh checkout at the same place, with the builder's artefacts."""
    mini.nox().well()
    (block,) = re.findall(
        r"name: wheel-.*\n +path: \|\n((?: +\S+\n)+?) +if-", text_of("target.yml")
    )
    there = {
        path.relative_to(mini.project.root): path.read_bytes()
        for pattern in block.split()
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


def run_of(name: str, job: str, step: str) -> str:
    """The shell of a step."""
    text = text_of(name)
    block = text[text.index(step) :]
    (script,) = re.findall(r"        run: \|\n((?:          .*\n|\n)+)", block)[:1]
    return textwrap.dedent(script)


def test_a_tag_ends_in_releases_whose_assets_are_the_files(tmp_path: Path) -> None:
    for target, system in (("rtx50", "linux"), ("rtx50", "windows"), ("cpu", "linux")):
        tiny.release(tmp_path / f"dist-{target}-{system}", target, None)
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH)
    program.chmod(0o755)
    env = {
        "PATH": f"{program.parent}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"),
        "GITHUB_REF_NAME": "v1", "GITHUB_SHA": "c" * 40, "GITHUB_REPOSITORY": "a/b",
    }  # fmt: skip
    script = run_of("release.yml", "publish", "The files, as assets")
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[2] for call in calls] == [
        "v1-cpu-linux", "v1-rtx50-linux", "v1-rtx50-windows",
    ]  # fmt: skip
    assert all(".whl" in call and "release.json" in call for call in calls)
    assert ".zip" not in "".join(calls)
    with pytest.raises(subprocess.CalledProcessError):  # nothing to release is an error
        subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path / "bin", env=env, check=True,
            capture_output=True,
        )  # fmt: skip
