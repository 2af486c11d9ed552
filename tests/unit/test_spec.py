"""``targets.toml`` and the options laid over it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sessions.shared import errors, knowledge, programs, spec
from sessions.shared.errors import USAGE, Problem
from sessions.shared.target import BuildSpec
from tests import fakes
from tests.problems import raises

TEXT = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
TARGETS = spec.load(TEXT, "linux")
TABLE = (
    '[one]\nsummary = "s"\nversion = "0.3.16"\narchs = ["120-real"]\npython = "3.11"\n'
    'cuda = "13.1"\nbudget_mb = 30\n'
)


def choose(*words: str) -> BuildSpec:
    return spec.choose(TARGETS, fakes.parsed(*words))


def refused(*words: str) -> Problem:
    with pytest.raises(Problem) as caught:
        choose(*words)
    return caught.value


def test_targets_toml_has_the_promised_targets_and_rtx50_first() -> None:
    assert list(TARGETS) == [
        "rtx50",
        "rtx50-fp4",
        "b200",
        "hopper",
        "ada",
        "ampere",
        "seed",
        "cpu",
    ]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_can_be_chosen_as_it_is(name: str) -> None:
    assert choose("--target", name) == TARGETS[name]


@pytest.mark.parametrize("name", [n for n, s in TARGETS.items() if s.cuda])
def test_every_cuda_target_can_be_made_from_nvidias_packages(name: str) -> None:
    assert knowledge.toolkit_lock(TARGETS[name].cuda or "").is_file()


def test_no_option_chooses_the_rtx_50() -> None:
    chosen = choose()
    assert (chosen.target, chosen.version, chosen.cuda) == ("rtx50", "0.3.16", "13.1")
    assert (chosen.archs, chosen.python) == (("120-real",), "3.11")
    assert (chosen.toolkit, chosen.source, chosen.cache) == ("pypi", None, "ccache")


def test_only_the_seed_carries_a_warning_and_ptx() -> None:
    assert [name for name, target in TARGETS.items() if target.warning] == ["seed"]
    assert TARGETS["seed"].archs == ("100",)
    assert all(a.endswith("-real") for n, t in TARGETS.items() if n != "seed" for a in t.archs)


def test_the_platform_is_the_callers() -> None:
    assert spec.load(TABLE, "windows")["one"].platform == "windows"


def test_text_that_is_not_toml_is_a_problem_that_names_the_place() -> None:
    with raises("targets-not-toml") as caught:
        spec.load("[one\n", "linux")
    assert "line 1" in caught.value.evidence


def without(field: str, line: str = "") -> str:
    """The table without a field, or with another line in its place."""
    lines = TABLE.splitlines(keepends=True)
    return "".join(kept for kept in lines if not kept.startswith(f"{field} =")) + line + "\n"


def load_refused(text: str) -> Problem:
    with pytest.raises(Problem) as caught:
        spec.load(text, "linux")
    assert caught.value.code == USAGE
    return caught.value


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("cuda = 13.1", "cuda"),
        ('cuda = "13"', "cuda"),
        ('cuda = "13.1\\n"', "cuda"),
        ('cuda = ""', "cuda"),
        ("python = 3.11", "python"),
        ('python = "python3.11"', "python"),
        ('python = "3.²"', "python"),
        ("archs = [120]", "archs[0]"),
        ('archs = ["120-real", 90]', "archs[1]"),
        ('archs = "120-real"', "archs"),
        ("archs = { a = 1 }", "archs"),
        ("archs = []", "archs"),
        ('archs = [""]', "archs[0]"),
        ('archs = ["sm_120"]', "archs"),
        ('archs = ["120-real", "120-real"]', "archs"),
        ('budget_mb = "30"', "budget_mb"),
        ("budget_mb = 30.5", "budget_mb"),
        ("budget_mb = true", "budget_mb"),
        ("budget_mb = -1", "budget_mb"),
        ("version = 1", "version"),
        ('version = "../../x"', "version"),
        ('version = ""', "version"),
        (f'version = "{"1" * 5000}.0"', "version"),
        ('summary = ["s"]', "summary"),
        ('summary = " "', "summary"),
        ("warning = false", "warning"),
        ('warning = ""', "warning"),
        ('device_features = "HMMA"', "device_features"),
        ("device_features = [1]", "device_features[0]"),
        ('device_features = [""]', "device_features[0]"),
        ('device_features = ["HMMA", "HMMA"]', "device_features"),
    ],
)
def test_load_names_the_field_that_is_wrong(line: str, field: str) -> None:
    problem = load_refused(without(line.split(" = ")[0], line))
    assert problem.id == "target-table-invalid"
    assert {told.split(": ")[0] for told in problem.evidence.splitlines()} == {f"one.{field}"}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (TABLE + 'arch = "120"\n', {"one"}),
        (TABLE + 'target = "two"\n', {"one"}),
        (without("version"), {"one.version"}),
        (TABLE.replace("python", "pyhton"), {"one.python", "one"}),
        (without("cuda"), {"one.archs"}),
        (without("cuda", 'device_features = ["HMMA"]').replace('["120-real"]', "[]"), None),
        ("[one]\n", {f"one.{f}" for f in ("summary", "version", "archs", "python", "budget_mb")}),
    ],
    ids=["unknown", "not-theirs", "missing", "misspelt", "no-cuda", "features-of-cpu", "nothing"],
)
def test_load_names_every_field_that_is_unknown_missing_or_out_of_place(
    text: str, fields: set[str] | None
) -> None:
    problem = load_refused(text)
    assert problem.id == "target-table-invalid"
    named = {told.split(": ")[0] for told in problem.evidence.splitlines()}
    assert named == (fields or {"one.device_features"})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "rtx50+mine",
        "../../x",
        "a/b",
        "..",
        "a b",
        "a.b",
        "RTX50",
        "-x",
        "x-",
        "é",
        "x" * 41,
        "aux",
        "com1",
        "nul",
        "simple",
        "cu131-sm120",
        "x\\ny",
    ],
)
def test_load_refuses_a_name_that_is_not_one_of_a_folder(name: str) -> None:
    problem = load_refused(TABLE.replace("[one]", f'["{name}"]'))
    assert problem.id == "target-table-invalid"


@pytest.mark.parametrize("name", ["rtx50", "rtx50-fp4", "1", "cu131", "x" * 40])
def test_load_takes_a_name_of_letters_digits_and_hyphens(name: str) -> None:
    assert list(spec.load(TABLE.replace("[one]", f"[{name}]"), "linux")) == [name]


@pytest.mark.parametrize(
    ("text", "id"),
    [
        (TABLE + TABLE, "targets-not-toml"),
        (TABLE + "budget_mb = 31\n", "targets-not-toml"),
        ("a = " + "[" * 5000, "targets-not-toml"),
        ("a = " + "1" * 5000, "targets-not-toml"),
        ("one = 1\n", "target-not-a-table"),
        ("[[one]]\n", "target-not-a-table"),
    ],
    ids=["table-twice", "field-twice", "nested", "huge", "value", "list"],
)
def test_load_refuses_a_text_that_is_not_tables(text: str, id: str) -> None:
    assert load_refused(text).id == id


@pytest.mark.parametrize("archs", ["120-real;120-real", "120;120-real", "120-virtual,120"])
def test_choose_refuses_an_architecture_that_is_named_twice(archs: str) -> None:
    assert refused("--arch", archs).id == "arch-twice"
    assert choose("--arch", "120-real;120-virtual;120a-real").archs != ()


def test_an_unknown_target_lists_those_there_are() -> None:
    problem = refused("--target", "rtx60")
    assert problem.what == "There is no target 'rtx60'."
    assert "rtx50, rtx50-fp4" in problem.evidence
    assert "--target rtx50" in problem.remedy


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["--arch", "120-real"], "rtx50"),
        (["--version", "0.3.16", "--cuda", "13.1", "--python", "3.11"], "rtx50"),
        (["--cache", "none"], "rtx50"),
        (["--jobs", "3", "--fresh", "--offline"], "rtx50"),
        (["--compiler", "/usr/bin/g++-11"], "rtx50"),
        (["--arch", "90-real"], "rtx50+arch90-real"),
        (["--arch", "120-real;90-real"], "rtx50+arch120-real-90-real"),
        (["--version", "0.3.36"], "rtx50+v0.3.36"),
        (["--cuda", "13.4"], "rtx50+cuda13.4"),
        (["--python", "3.12"], "rtx50+py3.12"),
        (["--toolkit", "system"], "rtx50+toolkit-system"),
        (["--toolkit", "/opt/my cuda"], "rtx50+toolkit-my_cuda"),
        (["--source", "/src/llama cpp"], "rtx50+source-llama_cpp"),
        (["--target", "ada", "--version", "0.3.36", "--cuda", "13.4"], "ada+v0.3.36+cuda13.4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_spec_is_named_for_what_it_builds_otherwise_than_its_table(
    words: list[str], label: str
) -> None:
    assert choose(*words).target == label


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "--target rtx50"),
        (["--version", "0.3.36"], "--target rtx50 --version 0.3.36"),
        (["--cuda", "13.4"], "--target rtx50 --cuda 13.4"),
        (
            ["--arch", "120-real;90-real"],
            "--target rtx50 --arch '120-real;90-real'",
        ),
        (["--python", "3.12"], "--target rtx50 --python 3.12"),
        (["--toolkit", "/my cuda"], "--target rtx50 --toolkit '/my cuda'"),
        (["--source", "/llama cpp"], "--target rtx50 --source '/llama cpp'"),
        (["--target", "ada", "--cuda", "13.4"], "--target ada --cuda 13.4"),
    ],
)
def test_the_command_of_a_spec_chooses_that_spec_again(words: list[str], line: str) -> None:
    made = choose(*words)
    told = spec.command("smoke", made)
    assert told == programs.typed(shlex.split(f"nox -s smoke -- {line}"))
    assert choose(*shlex.split(told)[4:]) == made
    assert spec.command("release", made, "--fresh").endswith(" --fresh")


@pytest.mark.parametrize("given", ["120-real;90a-real", "120-real,90a-real"])
def test_architectures_are_parted_by_semicolon_or_comma(given: str) -> None:
    assert choose("--arch", given).archs == ("120-real", "90a-real")


def test_a_relative_source_is_named_for_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert choose("--source", ".").target == "rtx50+source-mine"


def test_cuda_13_2_is_refused_with_the_reason() -> None:
    problem = refused("--cuda", "13.2")
    assert "miscompiles" in problem.what
    assert "ggml-org/llama.cpp#21255" in problem.what
    assert "--force" in problem.remedy


def test_cuda_13_2_is_built_with_when_forced() -> None:
    assert choose("--cuda", "13.2", "--force").cuda == "13.2"


@pytest.mark.parametrize("cuda", ["12.8", "14.0", "13"])
def test_an_unknown_cuda_lists_those_that_are_known(cuda: str) -> None:
    problem = refused("--cuda", cuda)
    assert problem.what == f"CUDA {cuda} is not one this project knows."
    assert "13.1" in problem.evidence


@pytest.mark.parametrize("arch", ["130-real", "sm_120", "120-sass", "120x", "native", "12.0", ""])
def test_an_unknown_architecture_is_refused(arch: str) -> None:
    problem = refused("--arch", f"120-real;{arch}")
    assert problem.what == f"{arch!r} is not a CUDA architecture this project knows."
    assert "120 (Blackwell: RTX 50" in problem.evidence


def test_an_architecture_that_this_cuda_cannot_build_is_refused() -> None:
    problem = refused("--arch", "107-real")
    assert problem.what == "CUDA 13.1 cannot build architecture 107-real."
    assert choose("--arch", "107-real", "--cuda", "13.4").archs == ("107-real",)


def test_an_unknown_version_names_the_command_that_locks_it() -> None:
    problem = refused("--version", "0.3.17")
    assert problem.evidence == "locked: " + ", ".join(knowledge.sdists())
    assert "nox -s lock -- --add llama-cpp-python==0.3.17" in problem.remedy


def test_an_unknown_version_of_ones_own_checkout_is_fine() -> None:
    assert choose("--version", "0.4.0", "--source", "/src/mine").version == "0.4.0"


def test_an_architecture_means_nothing_to_the_cpu_target() -> None:
    problem = refused("--target", "cpu", "--arch", "120-real")
    assert "builds for the CPU" in problem.what
    assert "--target rtx50" in problem.remedy


def test_a_toolkit_means_nothing_to_the_cpu_target() -> None:
    with raises("cpu-target-with-toolkit") as caught:
        spec.choose(TARGETS, fakes.parsed("--target", "cpu", "--toolkit", "system"))
    assert (caught.value.id, caught.value.code) == ("cpu-target-with-toolkit", errors.USAGE)


@pytest.mark.parametrize(
    ("name", "near"),
    [("RTX50", "rtx50"), ("rtx5090", "rtx50"), ("Hoper", "hopper"), ("xyzzy", None), ("", None)],
)
def test_a_target_that_was_probably_meant_is_named(name: str, near: str | None) -> None:
    with raises("target-unknown") as caught:
        spec.choose(TARGETS, fakes.parsed(target=name))
    assert caught.value.id == "target-unknown"
    assert (f"did you mean {near}?" in caught.value.evidence) is (near is not None)
    assert "did you mean" not in caught.value.evidence or near


@pytest.mark.parametrize("field", ["version", "cuda", "arch", "python"])
def test_an_empty_value_is_never_the_default(field: str) -> None:
    with pytest.raises(Problem) as caught:
        spec.choose(TARGETS, fakes.parsed(**{field: ""}))
    assert caught.value.code == errors.USAGE


def test_cuda_for_the_cpu_target_needs_an_architecture() -> None:
    assert "names no GPU architecture" in refused("--target", "cpu", "--cuda", "13.1").what


@pytest.mark.parametrize("python", ["3", "2.7", "python3.11", "3.11.2", "3.x"])
def test_what_is_no_python_version_is_refused(python: str) -> None:
    assert refused("--python", python).what == f"--python {python} is not a Python version."
