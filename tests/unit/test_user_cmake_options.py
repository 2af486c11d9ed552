"""Options of llama.cpp: which are refused, the names of targets, and the documents."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from sessions.build import cmake_settings, main_configure, sbom
from sessions.command_line import child_nox
from sessions.command_line.parse_options import parse
from sessions.release import provenance
from sessions.release.documents import wheel_card
from sessions.release.gate import Checkout
from sessions.shared import command_text, knowledge
from sessions.targets import choose_target, targets_file, user_cmake_options
from tests import fakes
from tests.problems import raises

ALL = ("GGML_CUDA_FA_ALL_QUANTS", "ON")
TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")
REFUSED = {
    "GGML_NATIVE": "ON", "GGML_AVX512": "ON", "GGML_AVX512_VNNI": "ON", "GGML_AMX_INT8": "ON",
    "GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON", "GGML_STATIC": "ON",
    "LLAMA_BUILD": "OFF", "LLAMA_BUILD_TOOLS": "ON", "GGML_LIB_INSTALL_DIR": "x",
    "GGML_CUDA": "OFF", "GGML_CCACHE": "ON", "GGML_VULKAN": "ON", "GGML_RPC": "ON",
    "GGML_SYCL_F16": "ON", "GGML_CUDA_NCCL": "on", "GGML_CUDA_FA": "off", "GGML_CUDA_DEBUG": "ON",
    "LLAMA_CURL": "ON", "GGML_OPENMP_FETCH": "ON", "GGML_SANITIZE_ADDRESS": "ON",
    "LLAMA_SANITIZE_THREAD": "ON", "GGML_GPROF": "ON", "CMAKE_CXX_FLAGS": "-O0",
    "CMAKE_CUDA_ARCHITECTURES": "90", "BUILD_SHARED_LIBS": "OFF", "PATH": "x",
}  # fmt: skip
ACCEPTED = {
    "GGML_CUDA_FA_ALL_QUANTS": "ON", "GGML_CUDA_FORCE_MMQ": "1", "GGML_CUDA_FORCE_CUBLAS": "ON",
    "GGML_CUDA_NO_PEER_COPY": "ON", "GGML_CUDA_PEER_MAX_BATCH_SIZE": "64", "GGML_CUDA_FA": "ON",
    "GGML_CUDA_NCCL": "OFF", "GGML_SCHED_MAX_COPIES": "1", "GGML_CUDA_COMPRESSION_MODE": "size",
    "GGML_OPENMP": "OFF", "GGML_LLAMAFILE": "ON", "GGML_CUDA_GRAPHS": "ON",
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_an_option_that_breaks_the_wheel_is_refused_with_the_reason(name: str, value: str) -> None:
    with raises("cmake-option-refused") as problem:
        choose_target.choose(TARGETS, parse(["--cmake", f"{name}={value}"]))
    assert problem.value.evidence == user_cmake_options.refusal(name, value)
    text = '[x]\nsummary="x"\nversion="0.3.16"\npython="3.11"\nbudget_mb=4\narchs=[]\n'
    with raises("target-table-invalid"):
        targets_file.load(text + f'cmake={{{name}="{value}"}}\n', "linux")


@pytest.mark.parametrize(("name", "value"), ACCEPTED.items())
def test_any_other_option_is_accepted(name: str, value: str) -> None:
    chosen = choose_target.choose(TARGETS, parse(["--cmake", f"{name}={value}"]))
    assert chosen.cmake == ((name, value),)


def test_each_row_of_the_knowledge_refuses_an_option() -> None:
    rows = knowledge.load("cmake.toml")["refused"]
    reasons = {user_cmake_options.refusal(*item) for item in REFUSED.items()}
    assert {row["why"] for row in rows} <= reasons
    assert all(row["source"] for row in rows)


@pytest.mark.parametrize("value", ["", "a b", "1;2", "$HOME", "x" * 41, "/etc", "-D", '"'])
def test_a_value_is_a_word_or_a_number(value: str) -> None:
    assert user_cmake_options.refusal("GGML_CUDA_FORCE_MMQ", value) is not None


@pytest.mark.parametrize("word", ["", "GGML_X", "=ON", "GGML_X="])
def test_a_word_that_is_not_name_and_value_is_refused(word: str) -> None:
    with raises("options-wrong"):
        parse(["--cmake", word])


def test_the_command_line_overrides_the_table_and_changes_the_name() -> None:
    base = dataclasses.replace(TARGETS["rtx50"], cmake=(ALL,))
    same = choose_target.choose({"rtx50": base}, parse([]))
    assert (same.target, same.cmake) == ("rtx50", (ALL,))
    other = choose_target.choose({"rtx50": base}, parse(["--cmake", "GGML_CUDA_FA_ALL_QUANTS=OFF"]))
    assert other.target == "rtx50+cmake-GGML_CUDA_FA_ALL_QUANTS-OFF"
    assert command_text.command("smoke", other) == (
        "nox -s smoke -- --target rtx50 --cmake GGML_CUDA_FA_ALL_QUANTS=OFF"
    )


def test_a_long_label_is_replaced_by_a_hash() -> None:
    long = dict.fromkeys(ACCEPTED, "ON")
    label = user_cmake_options.label(long)
    assert re.fullmatch("cmake-[0-9a-f]{8}", label)
    assert user_cmake_options.label({**long, "GGML_CUDA_GRAPHS": "OFF"}) != label


def test_an_option_with_more_kernels_raises_the_size_budget() -> None:
    plain = choose_target.choose(TARGETS, parse([]))
    more = choose_target.choose(TARGETS, parse(["--cmake", "GGML_CUDA_FA_ALL_QUANTS=ON"]))
    less = choose_target.choose(TARGETS, parse(["--cmake", "GGML_CUDA_FA_ALL_QUANTS=OFF"]))
    assert more.budget_mb > plain.budget_mb == less.budget_mb


def test_a_child_gets_the_options() -> None:
    words = ["--cmake=GGML_CUDA_FORCE_MMQ=ON", "--cmake=GGML_CUDA_GRAPHS=OFF"]
    assert child_nox.words(parse(words)) == words


def test_an_option_that_no_cmake_file_uses_is_refused(tmp_path: Path) -> None:
    files = {
        "vendor/llama.cpp/ggml/CMakeLists.txt": 'option( GGML_ONE "x" ON)\nset(GGML_TWO 1 CACHE …)',
        "vendor/llama.cpp/ggml/src/CMakeLists.txt": "if (GGML_THREE)\nif(NOT GGML_FOUR)",
        "vendor/llama.cpp/cmake/x.cmake": "# GGML_FIVE is described here",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    names = [f"GGML_{n}" for n in ("ONE", "TWO", "THREE", "FOUR", "FIVE", "ON")]
    assert user_cmake_options.unknown(names, tmp_path) == ["GGML_FIVE", "GGML_ON"]
    with raises("cmake-option-unknown"):
        main_configure._check_cmake_options(fakes.spec(cmake=(("GGML_SIX", "ON"),)), tmp_path)
    main_configure._check_cmake_options(fakes.spec(cmake=(("GGML_ONE", "ON"),)), tmp_path)


def test_an_option_is_in_the_sbom() -> None:
    plain, other = fakes.spec(), fakes.spec(cmake=(ALL,))
    source = fakes.source()
    texts = [json.dumps(sbom.document(one, source, 0, ())) for one in (plain, other)]
    assert ["GGML_CUDA_FA_ALL_QUANTS=ON" in text for text in texts] == [False, True]


def test_an_option_is_a_setting_of_cmake_and_is_in_the_documents() -> None:
    plain = fakes.evidence()
    other = fakes.evidence(spec=dataclasses.replace(plain.spec, cmake=(ALL,)))
    builds = [
        cmake_settings.configure(
            one.spec, fakes.compiler(), fakes.toolkit(), fakes.source(), fakes.places(), {}
        )
        for one in (plain, other)
    ]
    settings = [build.settings.get("cmake.define.GGML_CUDA_FA_ALL_QUANTS") for build in builds]
    assert settings == [None, "ON"]
    assert builds[0].fingerprint != builds[1].fingerprint
    words = {"en": "**Options of llama.cpp**", "es": "**Opciones de llama.cpp**"}
    for language, text in words.items():
        cards = [
            wheel_card.render(found, Checkout("4" * 40, ()), language) for found in (plain, other)
        ]
        line = f"{text}: `GGML_CUDA_FA_ALL_QUANTS=ON`"
        assert [line in card for card in cards] == [False, True]
    definition = provenance.statement(other, "4" * 40)["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["cmake"] == dict([ALL])
