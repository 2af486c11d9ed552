"""Variables, modules, limits and users of the caller do not change a build."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions.payload import pipconfig
from sessions.shared import programs
from tests.integration.conftest import ODD, REPOSITORY, Checkout, Project, copy_project

# Modules that ROS, HPC modules and Conda provide in other versions.
FOREIGN = ("packaging", "psutil", "rich", "tomli", "nox", "pip", "build", "filelock", "lief")
NOBODY = 65534


def hijack(folder: Path, names: tuple[str, ...] = FOREIGN) -> Path:
    """Write modules that end the process that imports them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text(f"raise SystemExit('hijacked: {name}')\n")
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return hijack(tmp_path / "foreign")


@pytest.mark.parametrize(
    "changes",
    [
        {"PYTHONPATH": "{foreign}"},
        {"PYTHONPATH": "{foreign}", "PYTHONSAFEPATH": "1"},
        {"PYTHONHOME": "{home}"},
        # None of these may have an effect, so one build tests all.
        {
            "PYTHONUSERBASE": "{foreign}",
            "PYTHONSTARTUP": "{foreign}/rich.py",
            "PYTHONWARNINGS": "error",
            "PYTHONOPTIMIZE": "2",
            "NOXSESSION": "lock",
            "NOX_DEFAULT_VENV_BACKEND": "uv",
            "NOXFORCEPYTHON": "9",
            "LD_PRELOAD": "/nonexistent/hook.so",  # the loader prints a warning in every process
        },
    ],
    ids=["modules", "modules, safe path", "home", "all others"],
)
def test_a_build_is_the_same_whatever_is_set(
    mini: Checkout, foreign: Path, built: Checkout, changes: dict[str, str]
) -> None:
    values = {"foreign": foreign, "home": sys.base_prefix}
    env = {name: value.format(**values) for name, value in changes.items()}
    ran = mini.nox(env=env).well()
    assert "hijacked" not in ran.output
    assert mini.libraries() == built.libraries()


def test_no_file_in_the_current_folder_is_executed(mini: Checkout) -> None:
    names = (*FOREIGN, "hashlib", "tempfile", "venv", "importlib")
    hijack(mini.project.root, names)
    hijack(mini.build, names)  # the current folder of python -m build
    ran = mini.nox().well()
    assert "hijacked" not in ran.output
    assert mini.record["version"] == "0.0.1"


@pytest.mark.parametrize("text", ["", "yesterday"])
def test_a_source_date_epoch_that_is_not_a_number_is_refused(mini: Checkout, text: str) -> None:
    mini.nox(env={"SOURCE_DATE_EPOCH": text}).badly("SOURCE_DATE_EPOCH")
    assert not mini.build.exists()


def test_the_configuration_file_of_a_ccache_store_is_ignored(
    mini: Checkout, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    # Each line would be an error of ccache or of the compiler.
    (store / "ccache.conf").write_text("prefix_command = /nonexistent\nsloppiness = nonsense\n")
    mini.nox(env={"CCACHE_DIR": str(store)}).well()
    assert [path for path in store.iterdir() if path.name != "ccache.conf"]  # it was used


@pytest.mark.parametrize(
    "shell", ['exec "$@" >&-', 'exec "$@" >&- 2>&- <&-', '"$@" | head -n 1', '"$@" | true']
)
def test_without_an_output_there_is_no_traceback(project: Project, shell: str) -> None:
    ran = project.nox("probe", "--target", "cpu", prefix=("sh", "-c", shell, "sh"))
    assert "Traceback" not in ran.output
    assert "bug of blackwheel" not in ran.output
    assert "Exception ignored" not in ran.output
    assert ran.code == 0


@pytest.mark.parametrize("limit", ["-n 16", "-s 512", "-f 1000"])
def test_the_error_names_a_limit_of_the_shell_that_is_too_low(project: Project, limit: str) -> None:
    shell = f'ulimit {limit}; exec "$@"'
    ran = project.nox("probe", "--target", "cpu", prefix=("sh", "-c", shell, "sh"))
    ran.badly(f"ulimit {limit.split()[0]}")


def test_a_venv_of_the_sessions_without_a_package_is_created_again(project: Project) -> None:
    whole = (project.root / ".nox").resolve()
    (project.root / ".nox").unlink()
    shutil.copytree(whole, project.root / ".nox", symlinks=True)
    (venv,) = (project.root / ".nox").iterdir()
    shutil.rmtree(next(venv.rglob("site-packages/rich")))
    ran = project.start("probe", "--target", "cpu").end(timeout=600).well()
    assert "is made again" in ran.output
    assert [path.name for path in (project.root / ".nox").iterdir()] == [venv.name]
    assert "is made again" not in project.nox("probe", "--target", "cpu").well().output


@pytest.fixture
def stranger(environment: dict[str, str]) -> Iterator[tuple[Project, tuple[str, ...]]]:
    """A copy, a home and a cache of an unprivileged user; a command prefix to run as this user."""
    user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        user = ("setpriv", *ids, "--no-new-privs")
    folder = Path(tempfile.mkdtemp(prefix="blackwheel-stranger-", dir="/var/tmp"))
    try:
        root = folder / ODD
        copy_project(root)
        shutil.copytree(REPOSITORY / "tests" / "data" / "mini-upstream", folder / "mini")
        (folder / "home").mkdir()
        env = {**environment, "HOME": str(folder / "home")}
        env |= {"BLACKWHEEL_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
        if user:
            for path in (folder, *folder.rglob("*")):
                os.lchown(path, NOBODY, NOBODY)
        yield Project(root, env), user
    finally:
        shutil.rmtree(folder)


def test_a_user_without_rights_and_with_a_foreign_environment_builds_from_nothing(
    stranger: tuple[Project, tuple[str, ...]],
) -> None:
    """The first run: it creates the venvs of the sessions and of the build tools."""
    project, user = stranger
    home, mini = Path(project.env["HOME"]), project.root.parent / "mini"
    # The package index of this machine.
    listed = programs.capture([sys.executable, *pipconfig.LIST], env=os.environ).stdout
    index = pipconfig.environment(project.env, listed, "install")
    index.pop("PIP_CONFIG_FILE")
    elsewhere = home / "elsewhere"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(
        f"[global]\nuser = true\n[install]\ntarget = {elsewhere}\nno-deps = true\n"
    )
    hijack(home / "foreign")
    env = {**index, "PYTHONPATH": str(home / "foreign")}
    env |= dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"), str(elsewhere))
    env |= dict.fromkeys(("PIP_USER", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN"), "1")
    env |= {"PIP_ONLY_BINARY": ":none:", "PIP_CONSTRAINT": "/nonexistent"}
    # The Python of the tests may be in a folder that another user cannot enter.
    system = ["/usr/bin/python3.11"] if user else []
    python = next(found for found in (*system, sys.executable) if Path(found).exists())
    ask = [*user, python, "-c", "import sys; print(sys.base_prefix)"]
    env["PYTHONHOME"] = programs.capture(ask, env={}).stdout.strip()
    words = ["--target", "cpu", "--source", str(mini)]
    ran = project.start("wheel", *words, env=env, prefix=user, python=python).end(timeout=900)
    assert "hijacked" not in ran.well().output
    assert not elsewhere.exists()
    checkout = Checkout(mini, project)
    assert checkout.record["version"] == "0.0.1"
    assert checkout.wheel.stat().st_uid == (NOBODY if user else os.geteuid())
