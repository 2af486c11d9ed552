"""The graph of the project: one session a stage. ``nox -l`` lists them."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # this folder: no file of it takes the place of a module
import importlib.util
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("blackwheel needs Python 3.11 or newer: python3.11 noxfile.py -s wheel")
ROOT = Path(__file__).resolve().parent
# Ours by its path alone, and nothing else of this folder, whoever's nox this is so far.
_spec = importlib.util.spec_from_file_location("sessions", ROOT / "sessions" / "__init__.py")
assert _spec
sys.modules["sessions"] = importlib.util.module_from_spec(_spec)

from sessions.core import bootstrap

bootstrap.enter(ROOT)

import nox

import sessions.bench
import sessions.bundle
import sessions.clean
import sessions.configure
import sessions.lock
import sessions.matrix
import sessions.probe
import sessions.publish
import sessions.release
import sessions.smoke
import sessions.source
import sessions.toolkit
import sessions.verify
import sessions.wheel
from sessions.core.context import stage

# A wheel that is given need not be built first.
BUILT = [] if any(w.split("=")[0] == "--wheel" for w in sys.argv) else ["wheel"]

nox.options.sessions = ["wheel"]
nox.options.stop_on_first_error = True  # nothing is cleaned away after a probe that failed
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = True


@nox.session
def probe(session: nox.Session) -> None:
    """What is on this machine; can the target be built with it. Options: --target --record DIR."""
    stage(session, sessions.probe.main)


@nox.session
def clean(session: nox.Session) -> None:
    """Delete what is stale. Options: --all --wheels --caches --dry-run."""
    stage(session, sessions.clean.main)


@nox.session(requires=["probe", "clean"])
def source(session: nox.Session) -> None:
    """Get, check and unpack the upstream source. Options: --version --source PATH --offline."""
    stage(session, sessions.source.main)


@nox.session(requires=["probe", "clean"])
def toolkit(session: nox.Session) -> None:
    """Get the CUDA toolkit. Options: --cuda --toolkit pypi|system|PATH --offline."""
    stage(session, sessions.toolkit.main)


@nox.session(requires=["source", "toolkit"])
def configure(session: nox.Session) -> None:
    """Decide what the compiler is told. Options: --arch --cache --compiler."""
    stage(session, sessions.configure.main)


@nox.session(requires=["configure"])
def wheel(session: nox.Session) -> None:
    """Build the wheel of a target into wheels/. Options: --target --jobs --fresh and all above."""
    stage(session, sessions.wheel.main)


@nox.session
def matrix(session: nox.Session) -> None:
    """Wheels of several targets for several Pythons. Options: --targets A,B --pythons X,Y."""
    stage(session, sessions.matrix.main)


@nox.session(requires=BUILT)
def verify(session: nox.Session) -> None:
    """Prove what is inside a wheel, without running it. Options: --target --wheel PATH."""
    stage(session, sessions.verify.main)


@nox.session(requires=["probe", *(["verify"] if BUILT else [])])
def smoke(session: nox.Session) -> None:
    """Prove that the wheel computes. Options: --device N|cpu --model PATH --report FILE --wheel."""
    stage(session, sessions.smoke.main)


@nox.session(requires=["probe", *BUILT])
def bench(session: nox.Session) -> None:
    """Measure the wheel, and others in turn. Options: --baseline WHEEL|NAME --rounds --model."""
    stage(session, sessions.bench.main)


@nox.session(requires=["verify"])
def bundle(session: nox.Session) -> None:
    """One file that proves the wheel on another machine. Options: --target --sign KEY."""
    stage(session, sessions.bundle.main)


@nox.session
def release(session: nox.Session) -> None:
    """Prove, judge, write dist/. Options: --target A,B --report --lang --reproduce and others."""
    stage(session, sessions.release.main)


@nox.session
def publish(session: nox.Session) -> None:
    """Print how to publish what was released, or upload it. Options: --target --to URL."""
    stage(session, sessions.publish.main)


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Unit tests: no network, no compiler, under a minute. Options: words for pytest."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/facts/dev.txt")
    session.run("python", "-m", "pytest", "tests/unit", *session.posargs)


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check with ruff and mypy --strict."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/facts/dev.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def integration(session: nox.Session) -> None:
    """Tests with real tools on a small upstream: minutes. Options: words for pytest."""
    session.install("--no-deps", "--require-hashes", "-r", "sessions/facts/integration.txt")
    session.run("python", "-m", "pytest", "tests/integration", *session.posargs)


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def tests_windows(session: nox.Session) -> None:
    """Tests in a Windows Python under Wine, which it installs: minutes. Options: for pytest."""
    session.run(sys.executable, "-m", "tests.windows.lab", external=True)  # or why there is none
    session.install("--no-deps", "--require-hashes", "-r", "sessions/facts/integration.txt")
    session.run("python", "-m", "pytest", "tests/windows", *session.posargs)


@nox.session(requires=["probe"])
def lock(session: nox.Session) -> None:
    """Maintainers: pin another upstream release or CUDA line. Options: --add NAME==VERSION."""
    stage(session, sessions.lock.main)


if __name__ == "__main__":
    nox.main()
