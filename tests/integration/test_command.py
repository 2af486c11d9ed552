"""The command as people type it: exit codes, help, and a relative path, through nox and without."""

from __future__ import annotations

import http.server
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sessions.shared import errors
from tests import tiny
from tests.integration.conftest import Project, snapshot

WAYS = [["{root}/noxfile.py"], ["-m", "nox", "-f", "{root}/noxfile.py"]]


def command(project: Project, way: list[str], *words: str, cwd: Path) -> tuple[int, str]:
    """Run a command line from a folder as its shell would; exit code and output."""
    start = [sys.executable, *(word.format(root=project.root) for word in way)]
    done = subprocess.run(
        [*start, *words],
        cwd=cwd,
        env={**project.env, "PWD": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


@pytest.mark.parametrize("way", WAYS, ids=["python", "nox"])
def test_the_exit_code_says_what_kind_of_failure_it_was(
    project: Project, way: list[str], tmp_path: Path
) -> None:
    stands = tmp_path / "where the user is"
    stands.mkdir()
    (stands / "bad.whl").touch()

    def run(line: str) -> tuple[int, str]:
        return command(project, way, *line.split(), cwd=stands)

    # A relative path is from where the user is, not from the noxfile's folder.
    code, said = run("-s verify -- --target cpu --wheel bad.whl")
    assert code == errors.CHECK_FAILED
    assert "✗ archive: " in said
    assert run("-s verify -- --target cpu --wheel gone.whl")[0] == errors.USAGE
    assert run("-s wheel -- --targt cpu")[0] == errors.USAGE
    assert run("-s whell")[0] == errors.USAGE
    code, said = run("-s smoke -- --target rtx50")  # these tests run where no GPU is
    assert code == errors.ENVIRONMENT
    assert "No NVIDIA driver answers here" in said
    assert "Fix: " in said
    # What nox adds is on a line of its own, after the remedy.
    assert [line for line in said.splitlines() if "aborted" in line] == [said.splitlines()[-1]]
    code, said = run("-s smoke -- --help")
    assert (code, said.count("--model PATH")) == (0, 1)
    assert "Running session" not in said


@pytest.mark.parametrize("way", WAYS, ids=["python", "nox"])
def test_a_remedy_repeats_the_words_of_the_user_and_can_be_pasted(
    project: Project, way: list[str], tmp_path: Path
) -> None:
    code, said = command(project, way, "-s", "whell", cwd=tmp_path)
    assert code == errors.USAGE
    remedy = said.splitlines()[-1].rpartition(": ")[2]
    start = [sys.executable, *(word.format(root=project.root) for word in way)]
    assert remedy == shlex.join([*start, "-l"])
    code, said = command(project, way, "--help", cwd=tmp_path)
    if way[0] != "-m":  # nox answers that itself
        assert (code, said.splitlines()[0]) == (
            0,
            f"usage: {shlex.join(start)} -s SESSION -- [options]",
        )
    done = subprocess.run(
        remedy,
        shell=True,
        cwd=tmp_path,
        env=project.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "* wheel" in done.stdout


@pytest.mark.parametrize("way", WAYS, ids=["python", "nox"])
def test_a_bug_has_a_code_of_its_own(project: Project, way: list[str]) -> None:
    main = project.root / "sessions" / "lock" / "main_lock.py"
    text = main.read_text(encoding="utf-8")
    planted = text.replace("    name, _, version =", '    {}["planted"]\n    name, _, version =')
    assert planted != text
    main.write_text(planted, encoding="utf-8")
    words = ["-s", "lock", "--", "--add", "cuda==13.4"]
    code, said = command(project, way, *words, cwd=project.root)
    assert code == errors.BUG
    assert "bug-lock.log" in said


@pytest.mark.parametrize(
    "line", ["-s wheel --target cpu", "-s smoke -- --report gone.json", "-s lock -- --dry-run"]
)
def test_what_is_refused_leaves_no_trace(project: Project, line: str) -> None:
    before = snapshot(project.root)
    code, said = command(project, WAYS[0], *line.split(), cwd=project.root)
    assert code == errors.USAGE
    assert "Running session" not in said
    after = {n: d for n, d in snapshot(project.root).items() if "__pycache__" not in str(n)}
    assert after == {n: d for n, d in before.items() if "__pycache__" not in str(n)}


def test_a_dry_run_of_publish_connects_to_nobody_and_a_real_one_does(project: Project) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            asked.append(str(self.client_address))
            super().handle()

    tiny.release(project.root / "dist", "hopper", "13.1", ("90-real",))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        to = ["--target", "hopper", "--to", f"http://127.0.0.1:{server.server_port}/"]
        ran = project.nox("publish", *to, "--dry-run").well()
        assert "llama_cpp_python-0.3.16-" in ran.output
        assert asked == []
        project.nox("publish", *to)
        assert asked != []
    finally:
        server.shutdown()
        server.server_close()
