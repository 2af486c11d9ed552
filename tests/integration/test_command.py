"""The command line with and without nox: exit codes, help, relative paths, remedies."""

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
    """Run a command line in a folder as a shell does; exit code and output."""
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
def test_exit_codes(project: Project, way: list[str], tmp_path: Path) -> None:
    here = tmp_path / "folder of the user"
    here.mkdir()
    (here / "bad.whl").touch()

    def run(line: str) -> tuple[int, str]:
        return command(project, way, *line.split(), cwd=here)

    # A relative path begins in the folder of the user, not in that of the noxfile.
    code, output = run("-s verify -- --target cpu --wheel bad.whl")
    assert code == errors.CHECK_FAILED
    assert "✗ archive: " in output
    assert run("-s verify -- --target cpu --wheel gone.whl")[0] == errors.USAGE
    assert run("-s wheel -- --targt cpu")[0] == errors.USAGE
    assert run("-s whell")[0] == errors.USAGE
    code, output = run("-s smoke -- --target rtx50")  # these tests run without a GPU
    assert code == errors.ENVIRONMENT
    assert "No NVIDIA driver answers here" in output
    assert "Fix: " in output
    # The message of nox is on its own line after the remedy.
    assert [line for line in output.splitlines() if "aborted" in line] == [output.splitlines()[-1]]
    code, output = run("-s smoke -- --help")
    assert (code, output.count("--model PATH")) == (0, 1)
    assert "Running session" not in output


@pytest.mark.parametrize("way", WAYS, ids=["python", "nox"])
def test_a_remedy_begins_with_the_words_of_the_user_and_can_be_pasted(
    project: Project, way: list[str], tmp_path: Path
) -> None:
    code, output = command(project, way, "-s", "whell", cwd=tmp_path)
    assert code == errors.USAGE
    remedy = output.splitlines()[-1].rpartition(": ")[2]
    start = [sys.executable, *(word.format(root=project.root) for word in way)]
    assert remedy == shlex.join([*start, "-l"])
    code, output = command(project, way, "--help", cwd=tmp_path)
    if way[0] != "-m":  # otherwise nox prints its own help
        usage = f"usage: {shlex.join(start)} -s SESSION -- [options]"
        assert (code, output.splitlines()[0]) == (0, usage)
    listed = subprocess.check_output(remedy, shell=True, cwd=tmp_path, env=project.env, text=True)
    assert "* wheel" in listed


@pytest.mark.parametrize("way", WAYS, ids=["python", "nox"])
def test_a_bug_has_its_own_exit_code(project: Project, way: list[str]) -> None:
    main = project.root / "sessions" / "lock" / "main_lock.py"
    text = main.read_text(encoding="utf-8")
    planted = text.replace("    name, _, version =", '    {}["planted"]\n    name, _, version =')
    assert planted != text
    main.write_text(planted, encoding="utf-8")
    words = ["-s", "lock", "--", "--add", "cuda==13.4"]
    code, output = command(project, way, *words, cwd=project.root)
    assert code == errors.BUG
    assert "bug-lock.log" in output


@pytest.mark.parametrize(
    "line", ["-s wheel --target cpu", "-s smoke -- --report gone.json", "-s lock -- --dry-run"]
)
def test_a_refused_command_leaves_nothing(project: Project, line: str) -> None:
    def files() -> dict[str, tuple[str, int]]:
        return {n: d for n, d in snapshot(project.root).items() if "__pycache__" not in n}

    before = files()
    code, output = command(project, WAYS[0], *line.split(), cwd=project.root)
    assert code == errors.USAGE
    assert "Running session" not in output
    assert files() == before


def test_a_dry_run_of_publish_does_not_connect_to_the_server(project: Project) -> None:
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
