"""The data in sessions/data, and the parsers of headers, requirements and architectures."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sessions.fetch import main_toolkit
from sessions.shared import knowledge
from sessions.shared.build_spec import HostRange
from tests import fakes
from tests.problems import raises

# The lines of crt/host_config.h of CUDA 13.1.115 about compilers, unchanged. Of the four tests of
# clang's version, only the last one is for clang itself.
HOST_CONFIG = """\
#if defined(__GRCO_CLANG_COMPILER__)
#if (__GRCO_CLANG_COMPILER__ == 1) && ((__clang_major__ < 16) || (__clang_major__ > 21))
#error -- unsupported Grace clang version! The version must be 16.x to 21.x.
#endif  /* (__GRCO_CLANG_COMPILER__ == 1) && ((__clang_major__ < 16) || (__clang_major__ > 21)) */
#endif /* __GRCO_CLANG_COMPILER__  */

#if defined(__GNUC__)

#if __GNUC__ > 15

#error -- unsupported GNU version! gcc versions later than 15 are not supported!

#endif /* __GNUC__ > 15 */

#if defined(__HORIZON__)
#if (__clang_major__ >= 19) || (__clang_major__ < 3) || ((__clang_major__ == 3) &&  (__clang_minor__ < 3))
#error -- unsupported HOS clang version!
#endif
#endif /* __HORIZON__  */

#if defined(__clang__) && !defined(__ibmxl_vrm__) && !defined(__ICC) && !defined(__HORIZON__)

#if (__clang_major__ >= 22) || (__clang_major__ < 3) || ((__clang_major__ == 3) &&  (__clang_minor__ < 3))
#error -- unsupported clang version! clang version must be less than 22 and greater than 3.2 .

#endif
#endif

#endif /* __GNUC__ */

#if defined(_WIN32)

#if _MSC_VER < 1920 || _MSC_VER >= 1950

#error -- unsupported Microsoft Visual Studio version!

#endif /* (_MSC_VER < 1910 || _MSC_VER >= 1950) */

#endif /* _WIN32 */
"""  # noqa: E501
LINES = list(knowledge.toolkits())
LOCKED = sorted(path.stem.removeprefix("cuda-") for path in knowledge.LOCKS.glob("cuda-*.txt"))


def test_the_accepted_compilers_are_read_from_nvidias_header() -> None:
    expected = HostRange(gnu_max=15, clang_min=3, clang_max=21, msvc_min=1920, msvc_max=1949)
    assert knowledge.parse_host_config(HOST_CONFIG) == expected
    assert knowledge.toolkit("13.1").accepts == expected
    for missing in ("__GNUC__ >", "_MSC_VER <", "(__clang_major__ >="):
        assert knowledge.parse_host_config(HOST_CONFIG.replace(missing, "?")) is None


@pytest.mark.parametrize(
    ("text", "cuda", "message"),
    [
        (HOST_CONFIG.replace("_MSC_VER >= 1950", "_MSC_VER >= 1960"), "13.1", "msvc_max=1959"),
        (HOST_CONFIG, "13.4", "gnu_max=15"),
        ("", "13.1", "not in a form that is known"),
    ],
)
def test_a_toolkit_that_accepts_other_compilers_than_its_row_is_refused(
    text: str, cuda: str, message: str
) -> None:
    assert main_toolkit.accepted(HOST_CONFIG, "13.1").gnu_max == 15
    with raises("toolkit-compiler-mismatch") as caught:
        main_toolkit.accepted(text, cuda)
    assert message in caught.value.evidence


@pytest.mark.parametrize(
    ("arch", "parts"),
    [
        ("120", (120, "", "")),
        ("120-real", (120, "", "real")),
        ("120a-real", (120, "a", "real")),
        ("100f-virtual", (100, "f", "virtual")),
        ("86-real", (86, "", "real")),
    ],
)
def test_an_architecture_has_number_suffix_and_kind(arch: str, parts: tuple[int, str, str]) -> None:
    assert knowledge.parse_arch(arch) == parts


@pytest.mark.parametrize(
    "arch", ["", "sm_120", "12.0", "120b", "120-sass", "all", "native", "119-real", "120-real "]
)
def test_any_other_text_is_not_an_architecture(arch: str) -> None:
    with raises("arch-unknown") as caught:
        knowledge.parse_arch(arch)
    assert repr(arch) in caught.value.what
    assert "--arch 120-real" in caught.value.remedy


def test_a_cuda_version_belongs_to_its_minor_version() -> None:
    assert {knowledge.toolkit(v).version for v in ("13.1", "13.1.115", "13.1.2.0")} == {"13.1"}
    with raises("cuda-unknown") as caught:
        knowledge.toolkit("12.9")
    assert caught.value.evidence == "known: " + ", ".join(LINES)


def test_only_13_2_is_known_to_be_bad() -> None:
    bad = {version: known.bad for version, known in knowledge.toolkits().items() if known.bad}
    assert list(bad) == ["13.2"]
    assert "ggml-org/llama.cpp#21255" in (bad["13.2"] or "")


def test_the_documented_releases_are_locked() -> None:
    assert {"0.3.16", "0.3.36"} <= set(knowledge.sdists())
    assert "13.1" in LOCKED
    assert any(tuple(map(int, line.split("."))) >= (13, 3) for line in LOCKED)


def _sourceless(table: dict[str, Any], name: str = "") -> list[str]:
    """The rows without a source: in a table of tables each row, else the table itself."""
    rows = {key: value for key, value in table.items() if isinstance(value, dict)}
    if not name or (rows and "source" not in table and len(rows) == len(table)):
        return [bad for key, row in rows.items() for bad in _sourceless(row, f"{name}.{key}")]
    return [] if str(table.get("source", "")).strip() else [name]


def test_every_row_about_cuda_has_a_source() -> None:
    tables = tomllib.loads((knowledge.KNOWLEDGE / "cuda.toml").read_text(encoding="utf-8"))
    assert len(tables["toolkit"]) >= 5
    assert _sourceless(tables) == []
    without = {"toolkit": {"13.1": {"driver": 580}, "13.0": {"source": "x"}}}
    assert _sourceless(without) == [".toolkit.13.1"]
    assert _sourceless({"host": {"gnu_min": 9}}) == [".host"]


@pytest.mark.parametrize("line", LINES)
def test_a_toolkit_row_is_plausible(line: str) -> None:
    known = knowledge.toolkit(line)
    assert known.accepts.clang_min <= known.accepts.clang_max
    assert known.accepts.msvc_min <= known.accepts.msvc_max
    assert known.driver >= 580
    assert {90, 100, 120} <= set(known.archs)
    assert list(known.archs) == sorted(known.archs)
    assert set(known.archs) <= set(knowledge.capability_names())


@pytest.mark.parametrize("version", list(knowledge.sdists()))
def test_an_sdist_is_locked_by_name_hash_and_time(version: str) -> None:
    sdist = knowledge.sdists()[version]
    assert sdist.file == f"llama_cpp_python-{version}.tar.gz"
    assert re.fullmatch(r"[0-9a-f]{64}", sdist.sha256)
    assert sdist.epoch > 315532800, "a zip archive cannot contain a time before 1980"


def test_only_the_newer_release_has_one_wheel_for_every_python() -> None:
    assert knowledge.sdists()["0.3.16"].py_api is None
    assert knowledge.sdists()["0.3.36"].py_api == "py3"


def pins(path: Path) -> dict[str, list[str]]:
    """Requirement -> hashes of a lock file."""
    blocks = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
    return {
        block.split()[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
        for block in blocks
        if not block.startswith("#")
    }


@pytest.mark.parametrize("line", LOCKED)
def test_a_locked_toolkit_has_all_its_packages_for_both_systems(line: str) -> None:
    hashes = pins(knowledge.toolkit_lock(line))
    versions = dict(requirement.split("==") for requirement in hashes)
    own = ("nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-nvvm")
    assert set(versions) == {*own, "nvidia-cublas", "nvidia-cuda-cccl"}
    assert {len(set(found)) for found in hashes.values()} == {2}
    assert all(versions[name].startswith(f"{line}.") for name in own)
    assert line in LINES


@pytest.mark.parametrize("name", ["dev.txt", "integration.txt", "runtime.txt", "tools.txt"])
def test_every_pin_of_a_tool_is_exact_and_hashed(name: str) -> None:
    found = pins(knowledge.LOCKS / name)
    assert len(found) > 5
    assert [text for text in found if not re.match(r"[A-Za-z0-9._-]+==\S+", text)] == []
    assert all(found.values())


def test_the_error_for_a_version_without_a_lock_names_those_with_one() -> None:
    with raises("cuda-not-locked") as caught:
        knowledge.toolkit_lock("13.0")
    assert caught.value.evidence == "locked: " + ", ".join(LOCKED)
    assert "nox -s lock -- --add cuda==13.0" in caught.value.remedy


def test_pins_are_read_from_a_requirements_file() -> None:
    text = "# c\nnvidia-cuda-nvcc==13.1.115 \\\n    --hash=sha256:aa\nninja==1.13 ; os == 'x'\n"
    assert knowledge.parse_requirements(text) == {"nvidia-cuda-nvcc": "13.1.115", "ninja": "1.13"}


@pytest.mark.parametrize(
    ("archs", "names"),
    [
        (["120"], {"120-real", "120-virtual"}),
        (["120a-real", "90"], {"120a-real", "90-real", "90-virtual"}),
        (["100-virtual"], {"100-virtual"}),
        ([], set()),
    ],
)
def test_shortest_is_the_inverse_of_compiled_to(archs: list[str], names: set[str]) -> None:
    assert {name for arch in archs for name in knowledge.compiled_to(arch)} == names
    assert sorted(knowledge.shortest(names)) == sorted(archs)


def test_the_documents_name_the_size_of_the_runtime() -> None:
    assert set(knowledge.load("wheel_policy.toml")["runtime"]["bytes"]) > set(
        knowledge.floors("13")
    )
    for name in ("README.md", "README.es.md", "ARCHITECTURE.md"):
        text = (fakes.ROOT / name).read_text(encoding="utf-8")
        assert f"{knowledge.runtime_mb()} MB" in text.replace("\n", " "), name


def test_shortest_keeps_other_words() -> None:
    assert knowledge.shortest({"native", "90-real"}) == ("90-real", "native")


def test_a_header_is_corrected_at_the_expected_number_of_places(tmp_path: Path) -> None:
    (header,) = knowledge.headers("13.1", "2.42")
    path = tmp_path / header.file
    path.parent.mkdir()
    path.write_text(
        "extern double rsqrt(double x);\nextern float  rsqrtf(float x);\nfloat r(int);\n"
    )
    main_toolkit.correct(tmp_path, [header])
    assert path.read_text() == (
        "extern double rsqrt(double x) noexcept(true);\n"
        "extern float  rsqrtf(float x) noexcept(true);\nfloat r(int);\n"
    )
    with raises("toolkit-header-unknown"):  # it is already corrected
        main_toolkit.correct(tmp_path, [header])


def test_older_glibcs_and_the_cuda_version_to_use_instead_need_no_correction() -> None:
    assert [knowledge.headers("13.1", glibc) for glibc in ("", "2.36", "2.41")] == [()] * 3
    for header in knowledge.headers("13.1", "99.0"):
        assert header.fixed in knowledge.toolkits()
        assert knowledge.headers(header.fixed, "99.0") == ()


def test_a_wheel_and_the_probe_agree_on_which_gpus_have_code() -> None:
    """The rule exists twice, because the modules in a wheel cannot import the sessions."""
    text = (knowledge.KNOWLEDGE.parents[1] / "build" / "overlay" / "_gpu_check.py").read_text(
        encoding="utf-8"
    )
    archs = "75 86-real 89 90a-real 100f 100f-real 120-real 120a 90-virtual"
    for arch in archs.split():
        module: dict[str, Any] = {}
        exec(text.replace("@ARCHS@", arch).replace("@CUDA@", "13.1"), module)
        for number in knowledge.capability_names():
            capability = divmod(number, 10)
            expected = knowledge.has_code((arch,), "{}.{}".format(*capability))
            assert module["has_code"](capability) is expected, (arch, capability)
