"""Declares every option: its name, type and help text, and the sessions that take it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

from sessions.command_line import session_order
from sessions.shared.build_spec import GLIBCS, CacheName


def text(value: str) -> str:
    """A value that is not empty: an unset shell variable must not select the default."""
    if not value.strip():
        raise argparse.ArgumentTypeError("the value is empty")
    return value


def positive(value: str) -> int:
    """A whole number of 1 or more."""
    if not (value.isascii() and value.isdecimal() and len(value) < 10) or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of 1 or more")
    return int(value)


def device(value: str) -> str:
    """The number of a GPU, or ``cpu``."""
    if value != "cpu" and not (value.isascii() and value.isdecimal()):
        raise argparse.ArgumentTypeError(f"{value!r} is neither the number of a GPU nor cpu")
    return value


def pin(value: str) -> str:
    """The argument of --add: a package and its version, a wheel, or a model family."""
    number = r"v?[0-9][0-9A-Za-z.]*"
    family = r"family==[a-z0-9-]+"
    if not re.fullmatch(
        rf"llama-cpp-python==({number}|latest)|cuda=={number}|{family}|runtime==.+\.whl", value
    ):
        raise argparse.ArgumentTypeError(
            f"{value!r} is none of llama-cpp-python==VERSION, cuda==X.Y, runtime==FILE.whl and "
            "family==NAME"
        )
    return value


def setting(value: str) -> str:
    """A CMake option and its value: NAME=VALUE."""
    name, equals, text = value.partition("=")
    if not (name and equals and text):
        raise argparse.ArgumentTypeError(f"{value!r} is not written as NAME=VALUE")
    return value


@dataclass(frozen=True)
class Option:
    """An option. It is a switch if it has neither ``metavar`` nor ``choices``."""

    name: str  # without the dashes: "dry-run"
    help: str
    sessions: tuple[str, ...]  # those that read it
    metavar: str | None = None
    kind: Callable[[str], object] = text
    choices: tuple[str, ...] = ()
    default: str | int | None = None
    many: bool = False  # may be given several times
    # Which commands take it. "chain": also those whose sessions run one of `sessions` first.
    # "asked": only those that name one of `sessions` after -s. "all": only those whose sessions
    # after -s all take it, because it changes what a session does (--dry-run, --wheel).
    reach: Literal["chain", "asked", "all"] = "chain"

    @property
    def field(self) -> str:
        """Its name in ``Options``."""
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name}"

    @property
    def shown(self) -> str:
        """Its name and value, as --help shows them."""
        value = self.metavar or "|".join(self.choices)
        return f"{self.flag} {value}" if value else self.flag


# The sessions that work on one target, which these options change.
_ONE = (
    "probe", "clean", "source", "toolkit", "configure", "wheel", "verify", "smoke", "ops",
    "bench", "bundle", "release", "publish",
)  # fmt: skip
_SPEC = (*_ONE, "matrix")
_BUILDS = ("matrix", "release")  # pass build options to the child nox processes that they start
_TRIES = ("smoke", "ops", "bench")

OPTIONS = (
    Option(
        "target",
        "a target of targets.toml (default: the first one), or auto for the GPUs of this machine; "
        "release and publish accept a list A,B",
        _ONE,
        "NAME",
    ),
    Option(
        "targets",
        "several targets, or all (without those that have product = false, such as seed)",
        ("matrix", "bundle", "release", "publish"),
        "A,B|all",
        reach="all",
    ),
    Option("version", "release of llama-cpp-python: one that is locked, or latest", _SPEC, "V"),
    Option(
        "cuda", "CUDA version: one that is locked, or that of an installed toolkit", _SPEC, "X.Y"
    ),
    Option(
        "arch",
        "CUDA architectures; 120-real, sm_120 and 12.0 mean the same. Quote a list: "
        "'120-real;89-real'",
        _SPEC,
        "A[;B]",
    ),
    Option("python", "Python version that the wheel is for", _SPEC, "X.Y"),
    Option(
        "pythons", "Python versions that the wheels are for, or all", ("matrix",), "X.Y,X.Z|all"
    ),
    Option("toolkit", "where the CUDA toolkit comes from", _SPEC, "pypi|system|PATH"),
    Option(
        "glibc",
        "oldest glibc that the wheel is for; host: the glibc of this machine",
        _SPEC,
        choices=GLIBCS,
    ),
    Option("source", "your own checkout of llama-cpp-python", _SPEC, "PATH"),
    Option(
        "cmake",
        "set an option of llama.cpp, for example GGML_CUDA_FA_ALL_QUANTS=ON. May be given several "
        "times",
        _SPEC,
        "NAME=VALUE",
        setting,
        many=True,
    ),
    Option("force", "continue with a combination that is known to be bad", _SPEC),
    Option(
        "wheel",
        "use this finished wheel instead of building one",
        ("probe", "verify", *_TRIES),
        "PATH",
        reach="all",
    ),
    Option("device", "index of the GPU to use, or cpu", _TRIES, "N|cpu", device),
    Option(
        "model",
        "a GGUF model: smoke also asks it questions, bench also measures it",
        ("smoke", "bench"),
        "PATH",
    ),
    Option(
        "families",
        "model families to test: those with operations or shapes that no other has, or all "
        "(default: default)",
        ("smoke", "bundle"),
        choices=("default", "all"),
        default="default",
    ),
    Option(
        "baseline",
        "also measure this wheel, alternating with yours; seed, upstream and ptx are built first. "
        "May be given several times",
        ("bench", "bundle"),
        "WHEEL|seed|upstream|ptx",
        many=True,
    ),
    Option(
        "cpu-module",
        "also measure the wheel with this module for the CPU, for example haswell. May be given "
        "several times",
        ("bench",),
        "NAME",
        many=True,
    ),
    Option(
        "rounds",
        "how many times each wheel is measured (default: 10; at least 8 for a verdict)",
        ("bench",),
        "N",
        positive,
        default=10,
    ),
    Option("report", "import the report that a bundle wrote", (*_TRIES, "release"), "PATH"),
    Option(
        "reports",
        "import every report in this folder; each belongs to the wheel whose SHA-256 it names",
        ("release",),
        "DIR",
    ),
    Option(
        "signers",
        "file of SSH public keys; a report must be signed by one of them",
        (*_TRIES, "release"),
        "PATH",
    ),
    Option("sign", "sign the bundle with this SSH key", ("bundle",), "KEY"),
    Option(
        "compiler",
        "C++ compiler to use instead of the one that probe chooses",
        ("probe", *_BUILDS),
        "PATH",
    ),
    Option(
        "cache",
        "compiler cache (default: ccache)",
        ("configure", *_BUILDS),
        choices=get_args(CacheName),
        default="ccache",
    ),
    Option(
        "jobs",
        "number of files to compile at once (default: what cores and memory allow)",
        ("probe", *_BUILDS),
        "N",
        positive,
    ),
    Option("prerelease", "also accept a preview release of Visual Studio", ("probe", *_BUILDS)),
    Option(
        "offline",
        "use only what is already on this machine",
        ("source", "toolkit", "configure", "wheel", *_TRIES, "bundle", *_BUILDS),
    ),
    Option(
        "fresh",
        "run this session again even if it is up to date",
        ("source", "toolkit", "wheel", "verify", "ops", "bench", *_BUILDS),
        reach="asked",
    ),
    Option(
        "all",
        "delete everything that was built, unpacked and recorded in this checkout",
        ("clean",),
        reach="asked",
    ),
    Option("wheels", "delete built wheels too", ("clean",), reach="asked"),
    Option(
        "caches", "delete toolkits, downloads and the compiler cache too", ("clean",), reach="asked"
    ),
    Option(
        "dry-run",
        "say what would be done, and do nothing",
        ("clean", "release", "publish"),
        reach="all",
    ),
    Option(
        "lang",
        "language of the wheel card (default: all)",
        ("release",),
        choices=("en", "es", "all"),
        default="all",
    ),
    Option("allow-untested-gpu", "release a wheel that was not tested on a GPU", ("release",)),
    Option("reproduce", "build a second time from nothing, and compare the bytes", ("release",)),
    Option("sigstore", "sign the provenance (opens a browser)", ("release",)),
    Option("record", "save what probe finds on this machine, for a bug report", ("probe",), "DIR"),
    Option(
        "add",
        "what to lock: llama-cpp-python==0.3.36 (or ==latest), cuda==13.4, runtime==FILE.whl or "
        "family==NAME",
        ("lock",),
        "NAME==V",
        pin,
    ),
    Option(
        "to",
        "upload to this package server: an address, or a name in ~/.pypirc",
        ("publish",),
        "URL",
    ),
    Option("help", "print this and do nothing", tuple(session_order.REQUIRES)),
)
BY_FIELD = {option.field: option for option in OPTIONS}
# Option -> the options that have no effect together with it, and are refused.
IDLE = {
    # A report is imported, and nothing runs here.
    "report": ("device", "model", "baseline", "cpu_module", "rounds", "families"),
    "source": ("version",),  # the checkout has its own
    "targets": ("target",),
    "reports": ("report",),
}
NEEDS = {"signers": ("report", "reports")}  # option -> it needs one of these
REQUIRED = {"lock": "add", "matrix": "targets"}  # session -> the option that it needs


def takes(option: Option, asked: Collection[str], *, given: bool = False) -> bool:
    """Whether a command with these sessions after -s takes an option."""
    own = [session in option.sessions for session in asked]
    match option.reach:
        case "chain":
            return not set(session_order.closure(asked, given=given)).isdisjoint(option.sessions)
        case "asked":
            return any(own)
        case "all":
            return all(own)


def takers(option: Option) -> tuple[str, ...]:
    """The sessions that take an option, each in a command of its own."""
    return tuple(session for session in session_order.REQUIRES if takes(option, [session]))
