"""Renders the wheel card, in English and Spanish: contents, requirements, tests. Pure.

The text is in ``templates/card.en.md`` and ``card.es.md``. Every value comes from the records.
"""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from sessions.release.documents import bench_charts, release_page, requirements, templating
from sessions.release.evidence import Evidence, runs_of_wheel, untested_places
from sessions.release.gate import UNSUPPORTED, Checkout
from sessions.release.provenance import neutral
from sessions.release.record_types import PythonWheel
from sessions.run import check_smoke_report, families
from sessions.run.record_types import SmokeReport
from sessions.shared import child_environment, knowledge
from sessions.shared.check_result import Check
from sessions.shared.command_text import command

LANGUAGES = {"en": "WHEEL.md", "es": "WHEEL.es.md"}
CHECK = {
    "linux": "sha256sum --check --ignore-missing SHA256SUMS",
    "windows": "certutil -hashfile {file} SHA256",
}
FP4 = "E2M1"  # in the name of an instruction with operands of four bits


@dataclass(frozen=True)
class Passed:
    """A check that passed: its title in the language of the card, and the summary of the record."""

    about: str
    said: str


def render(
    found: Evidence, checkout: Checkout, language: str, pythons: Sequence[PythonWheel] = ()
) -> str:
    """The card in "en" or "es". ``checkout`` is blackwheel's own, which released the wheel.

    ``pythons`` are the wheels with the same libraries for other Pythons.
    """
    template = _environment().get_template(f"card.{language}.md")
    return template.render(
        {
            **view(found, checkout.commit, language),
            "checkout": checkout,
            "pythons": pythons,
            "compiler": compiler(found),
            "all_gpus": for_all_gpus(found),
        }
    )


def compiler(found: Evidence) -> str:
    """The usual name of the compiler: "GCC 12.2.0 (Debian)"."""
    family, _, version = found.wheel.compiler.partition(" ")
    names = {"gnu": "GCC", "clang": "Clang", "msvc": "Microsoft Visual C++"}
    chosen = found.toolchain.compiler
    maker = re.search(r"\(([A-Za-z]+) ", chosen.identity.get("release", "")) if chosen else None
    return f"{names.get(family, family)} {version}" + (f" ({maker[1]})" if maker else "")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = templating.environment(html=False)
    environment.filters.update(code=_code, plain=release_page.plain)
    return environment


def view(found: Evidence, commit: str, language: str) -> dict[str, Any]:
    """Every value that a card shows."""
    wheel, spec = found.wheel, found.spec
    reports = [run.report for run in runs_of_wheel(found)]
    on_card = any(report.device != "cpu" for report in reports)
    missing = untested_places(found)
    words = _words()
    return {
        **requirements.view(found),
        "spec": spec,
        "wheel": wheel,
        "facts": found.facts,
        "source": found.source,
        "commit": commit,
        "sass": requirements.pieces(found, "sass"),
        "components": found.toolkit.components if found.toolkit else {},
        "generator": found.build.settings.get("cmake.args", "").removeprefix("-G"),
        "unsupported": UNSUPPORTED if UNSUPPORTED in str(found.build.settings) else "",
        "defines": _defines(found),
        "libraries": sorted(found.facts.libraries, key=lambda lib: -lib.size),
        "compared": comparison(found),
        "untested": missing,
        "verify": _passed(words["verify"], found.checks, language),
        "runs": [(report, _passed(words["smoke"], report.checks, language)) for report in reports],
        "on_card": on_card,
        "with_driver": any(report.driver for report in reports),
        "types": types(reports),
        "tensor": tensor(found),
        "fp4": fp4(found),
        "faults": families.faults(found.source.version, language, cuda=bool(spec.archs)),
        "offload": [] if missing else _offload(reports),
        "real_model": any(_result(report, "real-model") for report in reports),
        "bench": found.bench,
        "confidence": f"{found.bench.confidence:.0%}" if found.bench else "",
        "speeds": bench_charts.comparisons(found.bench) if found.bench else [],
        "commands": {
            "check": CHECK[spec.platform].format(file=wheel.file),
            "clean": "nox -s clean -- --all",
            "build": command("verify", spec),
            "prove": command("smoke", spec),
        },
        "variables": {
            n: neutral(found, v) for n, v in found.build.variables.items() if n in _SHOWN
        },
        # Variables of the caller: only their names, because their values are private.
        "passed": sorted(
            child_environment.system_environment(found.build.variables).keys() - set(_SHOWN)
        ),
        "line": _build_line(found),
        "locked": knowledge.is_in_repository(found.spec.version),
    }


# The environment variables that influence a build; the others are folders of the user.
_SHOWN = (
    "PATH", "INCLUDE", "LIB", "VCTOOLSVERSION", "WINDOWSSDKVERSION", "SOURCE_DATE_EPOCH", "LC_ALL",
    "PYTHONUTF8", "PYTHONNOUSERSITE", "PIP_NO_INDEX",
)  # fmt: skip


@functools.cache
def _words() -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads((templating.TEMPLATES / "words.toml").read_text(encoding="utf-8"))


def _passed(
    words: Mapping[str, Mapping[str, str]], checks: Iterable[Check], language: str
) -> list[Passed]:
    return [
        Passed(
            words[check.id][language] if check.id in words else release_page.plain(check.id),
            check.summary.removeprefix(f"{check.id}: "),
        )
        for check in checks
        if check.status == "ok"
    ]


def _offload(reports: Iterable[SmokeReport]) -> list[tuple[str, str]]:
    """The result of the check ``full-offload`` for each GPU, and the name of the GPU."""
    gpus = [report for report in reports if report.device != "cpu"]
    return [
        (_result(gpu, "full-offload"), gpu.device) for gpu in gpus if _result(gpu, "full-offload")
    ]


def _result(report: SmokeReport, id_: str) -> str:
    held = [check for check in report.checks if check.id == id_ and check.status == "ok"]
    return held[0].summary.removeprefix(f"{id_}: ") if held else ""


def tensor(found: Evidence) -> dict[str, int]:
    """The number of tensor-core instructions per kind: HMMA, IMMA, OMMA."""
    counts: dict[str, int] = {}
    for library in found.facts.libraries:
        for mnemonic, count in (library.device.tensor if library.device else {}).items():
            kind = mnemonic.split(".")[0]
            counts[kind] = counts.get(kind, 0) + count
    return dict(sorted(counts.items()))


def fp4(found: Evidence) -> int:
    """The number of FP4 instructions, if the target claims them and ``verify`` passed; else 0."""
    held = {check.id: check.status for check in found.checks}
    claimed = any(FP4 in claim.split(".") for claim in found.spec.device_features)
    if not claimed or held.get("gpu-features") != "ok":
        return 0
    counts = [lib.device.tensor for lib in found.facts.libraries if lib.device]
    return sum(n for table in counts for name, n in table.items() if FP4 in name.split("."))


def types(reports: Iterable[SmokeReport]) -> list[str]:
    """The quantization types whose cases were all within their bounds in every run."""
    cases = [case for report in reports for case in report.cases]
    bad = {case["type"] for case in cases if not check_smoke_report.holds(case)}
    return [name for name in dict.fromkeys(case["type"] for case in cases) if name not in bad]


def comparison(found: Evidence) -> dict[str, Any] | None:
    """The measured wheel of the same release, CUDA, system and capability, if there is one."""
    spec = found.spec
    if spec.cuda is None or not spec.archs:
        return None
    numbers = {knowledge.parse_arch(arch)[0] for arch in spec.archs}
    for row in knowledge.load("other_wheel_sizes.toml")["wheel"]:
        same = (row["version"], row["cuda"], row["platform"], {row["arch"]})
        if same == (found.source.version, spec.cuda, spec.platform, numbers):
            return dict(row)
    return None


def for_all_gpus(found: Evidence) -> dict[str, Any]:
    """Upstream's wheel for all GPUs on this system, if possible of the same release."""
    rows = knowledge.load("other_wheel_sizes.toml")["all_gpus"]
    mine = [row for row in rows if row["platform"] == found.spec.platform]
    return dict(next((row for row in mine if row["version"] == found.source.version), mine[-1]))


def _defines(found: Evidence) -> dict[str, str]:
    """The CMake settings of llama.cpp and the compiler flags, without paths of programs."""
    prefix, flags = "cmake.define.", {}
    for name, value in found.build.settings.items():
        if name.startswith((f"{prefix}GGML_", f"{prefix}LLAMA_")) or "FLAGS" in name:
            flags[name.removeprefix(prefix)] = neutral(found, value)
    if found.spec.archs:
        flags["CMAKE_CUDA_ARCHITECTURES"] = ";".join(found.spec.archs)
    return flags


def _build_line(found: Evidence) -> str:
    settings = {name: neutral(found, value) for name, value in found.build.settings.items()}
    words = [shlex.quote(f"-C{name}={value}") for name, value in settings.items()]
    return " \\\n    ".join(["python -m build --wheel --no-isolation", *words])


def _code(text: object) -> str:
    """A text as inline code in Markdown, also in a table."""
    body = release_page.line(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", body)), default=0))
    return f"{fence} {body} {fence}" if "`" in body else f"`{body}`"
