"""The nox sessions: ``nox -l`` lists them; those marked * run by default.

``nox -s SESSION -- --help`` prints the options of a session; docs/cli.md has all options.
"""

import functools
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # this folder, whose files must not hide modules
import importlib.util
from pathlib import Path

if sys.version_info < (3, 11):
    sys.stderr.write("blackwheel needs Python 3.11 or newer: python3.11 noxfile.py -s wheel\n")
    sys.exit(3)
ROOT = Path(__file__).resolve().parent
# Import `sessions` by its path: the folder is not on sys.path.
_spec = importlib.util.spec_from_file_location("sessions", ROOT / "sessions" / "__init__.py")
assert _spec
if getattr(sys.modules.get("sessions"), "__file__", None) != _spec.origin:
    sys.modules["sessions"] = importlib.util.module_from_spec(_spec)

from sessions.shared import bootstrap

bootstrap.enter(ROOT)

import nox

from sessions.build import main_clean, main_configure, main_wheel
from sessions.command_line import nox_session, session_order
from sessions.command_line.nox_session import run_phase
from sessions.fetch import main_source, main_toolkit
from sessions.lock import main_lock
from sessions.matrix import main_matrix
from sessions.probe import main_probe
from sessions.release import main_index, main_publish, main_release
from sessions.run import main_bench, main_bundle, main_ops, main_smoke
from sessions.verify import main_verify

# With --wheel no build runs first.
GIVEN = any(word.split("=")[0] == "--wheel" for word in sys.argv)
# With --targets, the session itself runs the other sessions for each target.
SEVERAL = any(word.split("=")[0] == "--targets" for word in sys.argv)
first = functools.partial(session_order.requires, given=GIVEN, several=SEVERAL)

nox.options.sessions = ["wheel"]
nox.options.stop_on_first_error = True  # after a failed probe, nothing is deleted
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = True


@nox.session
def probe(session: nox.Session) -> None:
    """Show what is installed on this machine, and whether the target can be built."""
    run_phase(session, main_probe.main)


@nox.session
def clean(session: nox.Session) -> None:
    """Delete outputs whose inputs have changed."""
    run_phase(session, main_clean.main)


@nox.session(requires=first("source"))
def source(session: nox.Session) -> None:
    """Get, check and unpack the upstream source."""
    run_phase(session, main_source.main)


@nox.session(requires=first("toolkit"))
def toolkit(session: nox.Session) -> None:
    """Get the CUDA toolkit."""
    run_phase(session, main_toolkit.main)


@nox.session(requires=first("configure"))
def configure(session: nox.Session) -> None:
    """Choose the settings of the build."""
    run_phase(session, main_configure.main)


@nox.session(requires=first("wheel"))
def wheel(session: nox.Session) -> None:
    """Build the wheel of a target into wheels/."""
    run_phase(session, main_wheel.main)


@nox.session(requires=first("matrix"))
def matrix(session: nox.Session) -> None:
    """Build wheels of several targets for several Python versions."""
    run_phase(session, main_matrix.main)


@nox.session(requires=first("verify"))
def verify(session: nox.Session) -> None:
    """Check what is inside a wheel, without running it."""
    run_phase(session, main_verify.main)


@nox.session(requires=first("smoke"))
def smoke(session: nox.Session) -> None:
    """Run the wheel and compare its results with a reference."""
    run_phase(session, main_smoke.main)


@nox.session(requires=first("ops"))
def ops(session: nox.Session) -> None:
    """Run upstream's test of every operator with the wheel."""
    run_phase(session, main_ops.main)


@nox.session(requires=first("bench"))
def bench(session: nox.Session) -> None:
    """Measure the speed of the wheel, alternating with other wheels."""
    run_phase(session, main_bench.main)


@nox.session(requires=first("bundle"))
def bundle(session: nox.Session) -> None:
    """Write one file that tests the wheel on another machine."""
    run_phase(session, main_bundle.main)


@nox.session(requires=first("release"))
def release(session: nox.Session) -> None:
    """Run the tests, check the records, and write dist/."""
    run_phase(session, main_release.main)


@nox.session(requires=first("index"))
def index(session: nox.Session) -> None:
    """Merge several dist/ folders into one package index, site/."""
    run_phase(session, main_index.main)


@nox.session(requires=first("publish"))
def publish(session: nox.Session) -> None:
    """Print how to publish the released wheels, or upload them."""
    run_phase(session, main_publish.main)


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the unit tests: no network, no compiler."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/data/locks/dev.txt")
    # Keep the files that pytest compiles, even if the caller's environment forbids bytecode.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    words = ("-n", "2", "--dist", "worksteal", *chosen(session, "tests/unit"))
    session.run("python", "-m", "pytest", *words, env=env)


def chosen(session: nox.Session, folder: str) -> list[str]:
    """The arguments of pytest: the files that the user names, else the folder."""
    named = any(Path(word.partition("::")[0]).exists() for word in session.posargs)
    return [*([] if named else [folder]), *session.posargs]


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check with ruff and mypy --strict."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/data/locks/dev.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def integration(session: nox.Session) -> None:
    """Run tests with real tools on a small upstream (about two hours)."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/data/locks/integration.txt")
    session.run("python", "-m", "pytest", *chosen(session, "tests/integration"))


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def tests_windows(session: nox.Session) -> None:
    """Run tests in a Windows Python under Wine, which it installs (minutes)."""
    session.run(sys.executable, "-m", "tests.windows.lab", external=True)  # or says why it cannot
    session.install("--no-deps", "--require-hashes", "-r", "sessions/data/locks/integration.txt")
    session.run("python", "-m", "pytest", *chosen(session, "tests/windows"))


@nox.session(requires=first("lock"))
def lock(session: nox.Session) -> None:
    """For maintainers: lock another upstream release or CUDA version."""
    run_phase(session, main_lock.main)


if __name__ == "__main__":
    nox_session.main(ROOT)
