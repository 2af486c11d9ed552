"""The wheel card: its sections in both languages, and only statements that the records support."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import pytest

from sessions.release.documents import release_page, requirements, wheel_card
from sessions.release.evidence import Evidence
from sessions.release.gate import UNSUPPORTED, Checkout
from sessions.release.record_types import PythonWheel
from sessions.shared import knowledge, records
from sessions.shared.check_result import Check
from sessions.verify.wheel_facts import WheelFacts
from tests import fakes
from tests.evidence import changed, libraries_with
from tests.unit.test_verify_checks import IDS

COMMIT = "4" * 40
CHECKOUT = Checkout(
    COMMIT, (), author="Ana Pérez", date="2026-11-28", origin="https://example.org/b.git"
)
WHEELS = {
    "rtx50": fakes.evidence(),
    "rtx50-fp4": fakes.fp4_evidence(),
    "cpu": fakes.cpu_evidence(),
    "untested": fakes.evidence(runs=()),
    "measured": fakes.measured(fakes.evidence(), "seed", "upstream"),
    "ptx": fakes.evidence(
        fakes.wheel_facts(libraries=libraries_with(fakes.device(ptx={"compute_120": 98}))),
        spec=fakes.claiming(archs=("120",), warning="Mind the PTX."),
    ),
}
# The sections of the Spanish card, in their order.
SECTIONS = [
    "Detalles del archivo",
    "Especificaciones de compilación",
    "Eficiencia y tamaño",
    "Requisitos de instalación",
    "Instrucciones de uso",
    "Notas técnicas",
    "Procedimiento de compilación (reproducción)",
    "1. Preparación del entorno",
    "2. Configuración de variables",
    "3. Ejecución del build",
]


def of(found: Evidence, language: str = "en") -> str:
    return wheel_card.render(found, CHECKOUT, language)


def headings(text: str) -> list[str]:
    return re.findall(r"^##+ (.*)$", text, re.MULTILINE)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def shape(text: str) -> list[str]:
    """The structure that both languages share: headings, code, tables, lists."""
    found, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            found.append("fence")
        elif fenced:
            found.append(line)
        elif line.startswith(("#", "|", "- ", "> ")) or re.match(r"\d\. ", line):
            mark = line.split(" ", 1)[0]
            code = re.findall(r"`[^`]+`", line) if not line.startswith("|") else []
            found.append(f"{mark} {line.count('|')} {code}")
    return found


@pytest.mark.parametrize("name", WHEELS)
def test_both_languages_have_the_same_content(name: str) -> None:
    english, spanish = of(WHEELS[name]), of(WHEELS[name], "es")
    assert shape(english) == shape(spanish)
    assert [title for title in headings(spanish) if title in SECTIONS] == SECTIONS
    assert len(headings(english)) == len(SECTIONS) + 2
    numbers = [sorted(re.findall(r"\d[\d.]*", text)) for text in (english, spanish)]
    assert numbers[0] == numbers[1]
    for text in (english, spanish):
        assert text.endswith("\n")
        for wrong in ("{{", "{%", "None", "\n\n\n\n", "/home/user"):
            assert wrong not in text
    assert english == of(WHEELS[name])


def test_known_faults_of_the_release_are_named_with_or_without_a_run() -> None:
    """Of 0.3.16: mixture-of-experts models in large batches on a GPU. 0.3.36 corrected it."""
    for name in ("rtx50", "untested"):
        assert "n_ubatch=128" in section(of(WHEELS[name]), "Technical notes")
    assert "n_ubatch=128" in section(of(WHEELS["rtx50"], "es"), "Notas técnicas")
    for name in ("cpu", "rtx50-fp4"):
        text = of(WHEELS[name])
        assert "n_ubatch=128" not in text
        assert "YaRN" in section(text, "Technical notes")


def test_only_the_fp4_wheel_claims_native_fp4() -> None:
    for language, claim in (
        ("en", "**Native FP4**: 6144 of these instructions"),
        ("es", "**FP4 nativo**: 6144"),
    ):
        assert claim in of(WHEELS["rtx50-fp4"], language)
        for name in ("rtx50", "cpu", "untested", "ptx"):
            assert not re.search("native fp4|fp4 nativo", of(WHEELS[name], language), re.IGNORECASE)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": dataclasses.replace(fakes.fp4_evidence().spec, device_features=("HMMA",))},
        {"facts": fakes.wheel_facts()},
        {"verify": dataclasses.replace(fakes.fp4_evidence().verify, groups=())},
    ],
    ids=["not-claimed", "not-in-the-code", "not-tested"],
)
def test_native_fp4_needs_the_claim_the_code_and_verify(
    change: dict[str, Any],
) -> None:
    assert wheel_card.fp4(WHEELS["rtx50-fp4"]) == 6144
    found = dataclasses.replace(WHEELS["rtx50-fp4"], **change)
    assert wheel_card.fp4(found) == 0
    assert "Native FP4" not in of(found)


def test_an_untested_wheel_is_marked_and_claims_no_test_results() -> None:
    for language in wheel_card.LANGUAGES:
        assert of(WHEELS["untested"], language).count("UNTESTED") >= 3
        for name in ("rtx50", "rtx50-fp4", "cpu"):
            assert "UNTESTED" not in of(WHEELS[name], language)
    text = of(WHEELS["untested"])
    assert "It has not been run on any machine." in text
    assert "**Layers on the GPU (offload)**: UNTESTED on the GPU" in text
    assert "no quantization was tested" in text
    assert "RTX 5090" not in text
    # A report of another wheel does not count.
    other = fakes.reported(fakes.evidence(), sha256="e" * 64)
    assert of(other) == text


def test_a_run_on_the_cpu_does_not_test_the_gpu() -> None:
    checks = [check for check in fakes.smoke_checks() if check["id"] not in fakes.ON_A_GPU]
    on_cpu = {"device": "cpu", "capability": None, "driver": None, "checks": checks}
    text = of(fakes.rerun(fakes.evidence(), **on_cpu))
    assert "By running it on the CPU, Linux 6.1.0 x86_64" in text
    assert "> **UNTESTED** on a GPU of compute capability 12.0" in text
    assert "**Layers on the GPU (offload)**: UNTESTED on the GPU" in text


def test_the_results_of_the_checks_are_those_of_the_records() -> None:
    found = WHEELS["rtx50"]
    text = section(of(found), "What was tested")
    for check in (c for group in found.verify.groups for c in group.checks):
        assert f"`{check.summary.removeprefix(check.id + ': ')}`" in text
    for check in fakes.report(found).checks:
        assert check.summary.removeprefix(check.id + ": ") in text
    device = ("NVIDIA GeForce RTX 5090", "12.0", "580.159.04")
    for words in (*device, "2026-01-02T03:04:05Z", "61.5 s"):
        assert words in text
    # A check that failed is not listed.
    failed = of(fakes.rerun(fakes.evidence(), checks=fakes.smoke_checks("memory")))
    assert "No GPU memory leaks" not in section(failed, "What was tested")
    assert "Every layer was on the GPU" in section(failed, "What was tested")


def test_requirements_follow_from_the_contents_of_the_wheel() -> None:
    text = section(of(WHEELS["rtx50"]), "What it requires")
    assert "compute capability 12.0 (Blackwell: RTX 50, RTX PRO)" in text
    assert "NVIDIA 580 or newer" in text
    assert "CPython 3.11, 64-bit" in text
    assert "Linux x86-64, glibc 2.35 or newer" in text
    assert "`nvidia-cublas<14,>=13.2.2.2`" in text
    assert "PyYAML" not in text
    assert f"and {knowledge.runtime_mb()} MB of NVIDIA's packages from PyPI" in text
    assert "take 732 MB on disk" in text
    cpu = section(of(WHEELS["cpu"]), "What it requires")
    assert "NVIDIA's packages from PyPI" not in cpu
    assert "no GPU" in cpu
    assert "**Driver**: none" in cpu
    ptx = section(of(WHEELS["ptx"]), "What it requires")
    assert "to use the PTX, a driver for CUDA 13.1 or newer" in ptx


@pytest.mark.parametrize(
    ("tags", "requires", "only", "since"),
    [
        (("cp311-cp311-manylinux_2_35_x86_64",), ">=3.8", "3.11", ""),
        (("py3-none-win_amd64",), ">=3.8", "", ">=3.8"),
        (("py3-none-win_amd64",), "", "", ">=3"),
        (("cp311-cp311-a", "cp312-cp312-a"), ">=3.8", "3.11, 3.12", ""),
    ],
)
def test_the_python_comes_from_the_tags(
    tags: tuple[str, ...], requires: str, only: str, since: str
) -> None:
    assert requirements.python(tags, requires) == {"only": only, "from": since}


def test_the_system_comes_from_the_tags() -> None:
    assert requirements.platform(("py3-none-win_amd64",)) == "Windows x64"
    assert requirements.glibc(("py3-none-win_amd64",)) == ""
    both = ("cp311-cp311-manylinux2014_x86_64", "cp311-cp311-manylinux_2_17_x86_64")
    assert (requirements.platform(both), requirements.glibc(both)) == ("Linux x86-64", "2.17")


def test_the_file_is_checked_with_a_tool_of_the_system() -> None:
    assert "sha256sum --check --ignore-missing SHA256SUMS" in of(WHEELS["rtx50"])
    windows = changed(WHEELS["cpu"], spec={"platform": "windows"})
    assert f"certutil -hashfile {windows.wheel.file} SHA256" in of(windows)


def test_the_size_is_compared_only_with_a_measured_wheel() -> None:
    assert "gave a wheel of 72.4 MB" in of(WHEELS["rtx50"])
    assert "3.7 times the size" in of(WHEELS["rtx50"])
    for name in ("rtx50-fp4", "cpu"):
        assert "**Comparison**: none" in of(WHEELS[name])
    hopper = dataclasses.replace(WHEELS["rtx50"], spec=fakes.claiming(archs=("90-real",)))
    assert wheel_card.comparison(hopper) is None
    assert "450 MB" not in of(WHEELS["rtx50"])


def test_the_measured_wheel_is_the_one_of_the_stored_facts() -> None:
    path = fakes.ROOT / "tests" / "data" / "wheelfile" / "seed-procedure.json"
    found = records.read(path, "facts", WheelFacts)
    assert found is not None
    (row,) = knowledge.load("other_wheel_sizes.toml")["wheel"]
    assert (row["size"], row["sha256"], row["version"]) == (found.size, found.sha256, found.version)
    (code,) = {tuple(lib.device.sass) for lib in found.libraries if lib.device}
    assert code == (f"sm_{row['arch']}",)


def test_an_unsupported_compiler_is_named() -> None:
    assert "allow-unsupported" not in of(WHEELS["rtx50"])
    found = fakes.evidence()
    settings = {**found.build.settings, "cmake.define.CMAKE_CUDA_FLAGS_INIT": UNSUPPORTED}
    reason = "because this compiler is not among those that CUDA 13.1"
    flagged = changed(found, build={"settings": settings})
    assert f"`-allow-unsupported-compiler`, {reason}" in of(flagged)


def test_the_build_procedure_comes_from_the_records() -> None:
    text = section(of(WHEELS["rtx50"]), "How to build it again")
    assert f"git checkout {COMMIT}\nnox -s clean -- --all\n" in text
    assert "nox -s verify -- --target rtx50\n" in text
    assert "    -Ccmake.define.CMAKE_CUDA_ARCHITECTURES=120-real \\\n" in text
    assert f"has SHA-256 `{'0' * 64}`" in text
    assert "SOURCE_DATE_EPOCH" in text
    for setting in WHEELS["rtx50"].build.settings:
        assert f"-C{setting}=" in text


def test_environment_variables_of_the_caller_are_listed_without_values() -> None:
    found = fakes.evidence()
    given = {"HOME": "/home/user", "TZ": "Atlantic/Canary", "LANG": "C.UTF-8"}
    text = of(changed(found, build={"variables": {**found.build.variables, **given}}))
    gets = "`HOME`, `LANG`, `TZ`, and the settings of the compiler cache"
    assert f"the build takes only {gets}" in text
    assert "Canary" not in text
    assert "If `SOURCE_DATE_EPOCH` is set in your environment" in text


def test_the_tested_quantizations_passed_every_case() -> None:
    report = fakes.report(WHEELS["rtx50"])
    every = list(dict.fromkeys(case["type"] for case in report.cases))
    assert len(every) == 25
    assert wheel_card.types([report]) == every
    bad = {**report.cases[0], "type": "Q4_K", "nmse": 1.0}
    lost = {"type": "Q8_0", "error": "no answer"}
    more = dataclasses.replace(report, cases=(*report.cases, bad, lost))
    good = [name for name in every if name not in ("Q4_K", "Q8_0")]
    assert wheel_card.types([more]) == good
    assert wheel_card.types([report, more]) == good  # with two GPUs: the types that pass on both


# Not in every report, because they need a model, upstream's source, or a second GPU.
OPTIONAL = {"real-model", "tokenizers", "two-gpus"}


def test_every_check_has_a_title_in_both_languages() -> None:
    words = wheel_card._words()
    assert set(words["verify"]) == IDS
    assert set(words["smoke"]) == {check["id"] for check in fakes.smoke_checks()} | OPTIONAL
    for row in itertools.chain(words["verify"].values(), words["smoke"].values()):
        assert set(row) == set(wheel_card.LANGUAGES)
        assert all(row.values())


def test_text_in_a_table_is_escaped() -> None:
    assert release_page.plain("a|b\nc") == "a\\|b c"
    assert wheel_card._code("a|b\nc") == "`a\\|b c`"
    assert wheel_card._code("a `b`") == "`` a `b` ``"
    assert wheel_card._code("a `` <b>") == "``` a `` <b> ```"


HOSTILE = "**Zed** `x` [a](http://b) <script>|</script> ~~\n# C\x1b[2J\u202e"


def hostile(**changes: Any) -> Evidence:
    """With a report of a stranger: its checksum is right, but it is not signed."""
    found = fakes.evidence()
    checks = [
        *fakes.smoke_checks(),
        {"id": HOSTILE, "status": "ok", "summary": HOSTILE, "evidence": "", "remedy": ""},
    ]
    words = dict.fromkeys(("device", "driver", "system", "python", "started"), HOSTILE)
    found = fakes.reported(found, **words, times={HOSTILE: 1.0}, origin=HOSTILE)
    return fakes.reported(found, checks=tuple(Check(**check) for check in checks), **changes)


@pytest.mark.parametrize("language", wheel_card.LANGUAGES)
def test_text_of_a_report_is_escaped(language: str) -> None:
    text = of(hostile(), language)
    assert text.count("&lt;script") > 5
    assert headings(text) == headings(of(WHEELS["rtx50"], language))
    assert all(c == "\n" or c.isprintable() for c in text)
    outside = re.sub(r"(?<![\\`])(`+)[^`\n].*?[^`]\1(?!`)", "", text)  # of what shows as it is
    for words in ("<script", "[a]", "**Zed", "`x`", "~~"):
        assert words not in outside


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "this repository does not lock it"), ("es", "este repositorio no lo tiene fijado")],
)
def test_a_release_that_is_not_locked_here_is_named(
    language: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a release of --version latest, which is locked in the cache."""
    version = "0.3.99"
    locked = dataclasses.replace(knowledge.sdists()["0.3.36"], sha256="9" * 64)
    sdists = {**knowledge.sdists(), version: locked}
    monkeypatch.setattr(knowledge, "sdists", lambda: sdists)
    latest = of(fakes.evidence(spec=fakes.claiming(version=version)), language)
    (line,) = [line for line in latest.splitlines() if version in line and "SHA-256" in line]
    assert words in line
    assert "9" * 64 in line
    for found in (WHEELS["rtx50"], WHEELS["rtx50-fp4"]):
        assert words not in of(found, language)


def test_the_card_says_how_to_run_a_model_and_the_server() -> None:
    for language in ("en", "es"):
        text = of(WHEELS["rtx50"], language)
        code = re.findall(r"```\n(from llama_cpp.*?)```", text, re.DOTALL)
        assert len(code) == 1
        assert len(code[0].splitlines()) == 4
        compile(code[0], "example", "exec")
        assert "n_gpu_layers=-1" in code[0]
        assert '.whl[server]"' in text
        assert "python -m llama_cpp.server --model MODEL.gguf --n_gpu_layers -1" in text
        assert "--force-reinstall --no-deps" in text
    cpu = of(WHEELS["cpu"])
    assert "n_gpu_layers=0" in cpu
    assert "--n_gpu_layers" not in cpu


@pytest.mark.parametrize(
    ("version", "platform", "mb", "other"),
    [
        ("0.3.16", "linux", 551.3, "CUDA"),
        ("0.3.36", "linux", 783.6, "CUDA"),
        ("0.3.99", "linux", 783.6, "release and CUDA"),
        ("0.3.16", "windows", 228.4, "release and CUDA"),
    ],
)
def test_the_card_compares_with_a_wheel_for_all_gpus(
    version: str, platform: str, mb: float, other: str
) -> None:
    found = changed(WHEELS["rtx50"], source={"version": version}, spec={"platform": platform})
    times = round(mb * 1e6 / found.wheel.size)
    text = of(found)
    assert f"has {mb} MB, {times} times the size of this wheel (with another {other}" in text
    assert f"tiene {mb} MB, {times} veces el tamaño de este" in of(found, "es")
    assert "wheel for all GPUs" not in of(WHEELS["cpu"])


def test_the_title_the_tools_the_author_and_the_address_to_clone() -> None:
    found = WHEELS["rtx50"]
    for language, word in (("en", "by"), ("es", "de")):
        text = of(found, language)
        assert text.splitlines()[0].endswith(f"{found.spec.target} ({found.spec.summary})")
        assert "(build, scikit-build-core, CMake, ninja)" in text
        assert text.endswith(f"blackwheel {COMMIT[:12]}, {word} Ana Pérez, 2026-11-28.*\n")
        assert "git clone https://example.org/b.git blackwheel\ncd blackwheel\n" in text
        assert "pipx install nox" in text
    bare = wheel_card.render(WHEELS["rtx50"], Checkout(COMMIT, ()), "en")
    assert "git clone ADDRESS-OF-BLACKWHEEL blackwheel" in bare
    assert bare.endswith(f"*Generated by blackwheel {COMMIT[:12]}.*\n")


@pytest.mark.parametrize(
    ("family", "release", "name"),
    [
        ("gnu 12.2.0", "g++ (Debian 12.2.0-14+deb12u1) 12.2.0", "GCC 12.2.0 (Debian)"),
        ("gnu 13.3.0", "g++ (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", "GCC 13.3.0 (Ubuntu)"),
        ("gnu 14.2.0", "g++ (GCC) 14.2.0", "GCC 14.2.0"),
        ("msvc 19.44.35207", "", "Microsoft Visual C++ 19.44.35207"),
    ],
)
def test_the_compiler_has_its_usual_name(family: str, release: str, name: str) -> None:
    found = WHEELS["rtx50"]
    assert found.toolchain.compiler is not None
    chosen = dataclasses.replace(found.toolchain.compiler, identity={"release": release})
    found = changed(found, toolchain={"compiler": chosen}, wheel={"compiler": family})
    assert wheel_card.compiler(found) == name


def test_the_wheels_of_other_pythons_are_in_the_card() -> None:
    more = (PythonWheel("3.12", "a-cp312.whl", "b" * 64, 123),)
    for language in ("en", "es"):
        text = wheel_card.render(WHEELS["rtx50"], CHECKOUT, language, more)
        assert f"| 3.12 | `a-cp312.whl` | 123 | `{'b' * 64}` |" in text
        assert "a-cp312" not in of(WHEELS["rtx50"], language)
