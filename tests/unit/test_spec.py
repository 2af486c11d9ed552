"""``targets.toml`` and the options laid over it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sessions.shared import errors, knowledge, programs, remedies
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import USAGE, Problem
from sessions.targets import auto_target, spec, targets_file
from tests import fakes
from tests.problems import raises

TEXT = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
TARGETS = targets_file.load(TEXT, "linux")
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
    assert targets_file.load(TABLE, "windows")["one"].platform == "windows"


def test_text_that_is_not_toml_is_a_problem_that_names_the_place() -> None:
    with raises("targets-not-toml") as caught:
        targets_file.load("[one\n", "linux")
    assert "line 1" in caught.value.evidence


def without(field: str, line: str = "") -> str:
    """The table without a field, or with another line in its place."""
    lines = TABLE.splitlines(keepends=True)
    return "".join(kept for kept in lines if not kept.startswith(f"{field} =")) + line + "\n"


def load_refused(text: str) -> Problem:
    with pytest.raises(Problem) as caught:
        targets_file.load(text, "linux")
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
    assert list(targets_file.load(TABLE.replace("[one]", f"[{name}]"), "linux")) == [name]


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
        (["--glibc", "2.28"], "rtx50"),
        (["--glibc", "host"], "rtx50+glibchost"),
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
        (["--glibc", "host"], "--target rtx50 --glibc host"),
        (["--toolkit", "/my cuda"], "--target rtx50 --toolkit '/my cuda'"),
        (["--source", "/llama cpp"], "--target rtx50 --source '/llama cpp'"),
        (["--target", "ada", "--cuda", "13.4"], "--target ada --cuda 13.4"),
        (["--cmake", "GGML_CUDA_GRAPHS=OFF"], "--target rtx50 --cmake GGML_CUDA_GRAPHS=OFF"),
    ],
)
def test_the_command_of_a_spec_chooses_that_spec_again(words: list[str], line: str) -> None:
    made = choose(*words)
    told = remedies.command("smoke", made)
    assert told == programs.typed(shlex.split(f"nox -s smoke -- {line}"))
    assert choose(*shlex.split(told)[4:]) == made
    assert remedies.command("release", made, "--fresh").endswith(" --fresh")


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
    made = choose("--cuda", "13.2", "--force")
    assert (made.cuda, made.target) == ("13.2", "rtx50+cuda13.2")
    told = remedies.command("smoke", made)
    assert choose(*shlex.split(told)[4:]) == made  # the command that a remedy names is not refused
    assert "--force" not in choose("--cuda", "13.4", "--force").arguments


@pytest.mark.parametrize("cuda", ["12.8", "14.0", "13"])
def test_an_unknown_cuda_lists_those_that_are_known(cuda: str) -> None:
    problem = refused("--cuda", cuda)
    assert problem.what == f"blackwheel does not know CUDA {cuda}."
    assert "13.1" in problem.evidence


@pytest.mark.parametrize(
    "arch", ["130-real", "sm_130", "120-sass", "120x", "native", "1.2", "12", "sm120b", ""]
)
def test_an_unknown_architecture_is_refused(arch: str) -> None:
    problem = refused("--arch", f"120-real;{arch}")
    assert problem.what.startswith("blackwheel does not know the CUDA architecture ")
    assert re.search(r"^120 \(Blackwell: RTX 50", problem.evidence, re.MULTILINE)
    assert max(map(len, str(problem).splitlines())) < 200


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


def test_a_wheel_for_linux_is_for_an_older_glibc_unless_its_table_says_otherwise() -> None:
    text = TABLE.replace("budget_mb", 'glibc = "host"\nbudget_mb')
    assert text != TABLE
    for table, old in ((TABLE, True), (text, False)):
        (found,) = targets_file.load(table, "linux").values()
        assert found.old_glibc is old
        (found,) = targets_file.load(table, "windows").values()
        assert not found.old_glibc
    problem = load_refused(text.replace("host", "2.17"))
    assert problem.id == "target-table-invalid"
    assert "glibc: '2.17' is not one of 2.28, host" in problem.evidence


def test_a_wheel_for_windows_has_no_glibc() -> None:
    tables = targets_file.load(TABLE, "windows")
    with raises("glibc-on-windows") as caught:
        spec.choose(tables, fakes.parsed("--glibc", "2.28"))
    assert caught.value.code == errors.USAGE


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
    [
        ("RTX50", "--target rtx50"),
        ("rtx5090", "--target rtx50"),
        ("5070 Ti", "--target rtx50"),
        ("RTX 4090", "--target ada"),
        ("rtx40", "--target ada"),
        ("NVIDIA GeForce RTX 3090", "--target ampere"),
        ("h200", "--target hopper"),
        ("A100", "--arch 80-real"),
        ("Hoper", "--target hopper"),
        ("gb200", None),  # Arm
        ("gpu", None),
        ("rtx9090", None),
        ("xyzzy", None),
        ("", None),
    ],
)
def test_a_target_that_was_probably_meant_is_named(name: str, near: str | None) -> None:
    with raises("target-unknown") as caught:
        spec.choose(TARGETS, fakes.parsed(target=name))
    problem = caught.value
    assert ("did you mean" in problem.evidence) is (near is not None)
    assert problem.remedy.endswith(f"nox -s wheel -- {near or '--target rtx50'}")
    assert problem.remedy.startswith("choose one of those") is (near is None)


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


@pytest.mark.parametrize("python", ["3.7", "3.99", "3.011"])
def test_a_python_that_no_wheel_can_be_for_is_refused(python: str) -> None:
    problem = refused("--python", python)
    assert problem.id == "python-unknown"
    assert problem.evidence == "known: " + ", ".join(knowledge.pythons())
    assert "--python" in problem.remedy


@pytest.mark.parametrize(
    ("given", "archs"),
    [
        ("sm_120", ("120-real",)),
        ("SM_120", ("120-real",)),
        ("sm120a", ("120a-real",)),
        ("compute_90", ("90-virtual",)),
        ("12.0", ("120-real",)),
        ("8.9", ("89-real",)),
        ("12.0a", ("120a-real",)),
        ("9.0+PTX", ("90",)),
        ("120", ("120",)),
        ("120f", ("120f",)),
        ("sm_120; 8.6", ("120-real", "86-real")),
    ],
)
def test_an_architecture_may_be_written_as_nvcc_or_pytorch_does(
    given: str, archs: tuple[str, ...]
) -> None:
    assert choose("--arch", given).archs == archs


def test_the_same_architecture_in_other_words_is_the_same_target() -> None:
    assert choose("--arch", "sm_120") == choose("--arch", "12.0") == choose()
    assert refused("--arch", "120-real;12.0").id == "arch-twice"


def test_a_tables_architectures_are_written_in_one_way_only() -> None:
    assert load_refused(TABLE.replace("120-real", "sm_120")).id == "target-table-invalid"


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        ([], 30),
        (["--arch", "90-real"], 30),
        (["--arch", "120-real;86-real"], 60),
        (["--arch", "120-real;89-real;86-real"], 90),
        (["--arch", "120"], 60),  # machine code and PTX
        (["--target", "seed"], 45),
        (["--target", "seed", "--arch", "100-real"], 45),
        (["--target", "seed", "--arch", "100;120-real"], 67),
        (["--target", "cpu"], 12),
    ],
)
def test_the_size_budget_grows_with_the_architectures(words: list[str], budget: int) -> None:
    assert choose(*words).budget_mb == budget


@pytest.mark.parametrize("version", ["0.3.16", "v0.3.16"])
def test_a_version_may_be_written_as_its_tag(version: str) -> None:
    assert choose("--version", version) == choose()


def test_the_latest_version_is_the_newest_that_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("--version", "latest").version == knowledge.newest_sdist()
    rows = dict.fromkeys(("0.3.9", "0.3.100", "0.3.36"))
    monkeypatch.setattr(knowledge, "sdists", lambda: rows)
    assert knowledge.newest_sdist() == "0.3.100"


@pytest.mark.parametrize("version", ["newest", "v", "vv0.3.16", "Latest"])
def test_what_is_no_version_is_not_offered_to_be_locked(version: str) -> None:
    problem = refused("--version", version)
    assert problem.id == "version-not-locked"
    assert "nox -s lock" not in problem.remedy
    assert "latest" in problem.remedy


# ---- --target auto -------------------------------------------------------------------------------

NAMES = {
    "12.0": "NVIDIA GeForce RTX 5090",
    "12.1": "NVIDIA GB10",
    "10.0": "NVIDIA B200",
    "9.0": "NVIDIA H100",
    "8.9": "NVIDIA GeForce RTX 4090",
    "8.6": "NVIDIA GeForce RTX 3090",
    "8.0": "NVIDIA A100",
    "7.5": "NVIDIA GeForce RTX 2080 Ti",
    "6.1": "NVIDIA GeForce GTX 1080",
    "10.7": "NVIDIA Rubin",
    "15.0": "NVIDIA Unknown",
}


def nvml(*capabilities: str) -> dict[str, Any]:
    """What NVML answers on a machine with GPUs of these compute capabilities."""
    cards = [
        fakes.nvml_gpu(index=at, name=NAMES[kind], compute_capability=kind)
        for at, kind in enumerate(capabilities)
    ]
    return {**fakes.nvml(), "devices": cards}


def auto(*capabilities: str, words: tuple[str, ...] = ()) -> tuple[BuildSpec, str]:
    options, told = auto_target.auto(
        TARGETS, fakes.parsed("--target", "auto", *words), nvml(*capabilities)
    )
    return spec.choose(TARGETS, options), told


def without_target(*capabilities: str, words: tuple[str, ...] = ()) -> Problem:
    with pytest.raises(Problem) as caught:
        auto(*capabilities, words=words)
    assert (caught.value.id, caught.value.code) == ("gpu-without-target", errors.ENVIRONMENT)
    return caught.value


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        ("12.0", "rtx50"),
        ("12.1", "rtx50"),
        ("10.0", "b200"),
        ("9.0", "hopper"),
        ("8.9", "ada"),
        ("8.6", "ampere"),
    ],
)
def test_auto_is_the_target_of_the_gpu(capability: str, target: str) -> None:
    for count in (1, 2):
        chosen, told = auto(*[capability] * count)
        assert chosen == TARGETS[target]
        assert told == f"target auto: {target}, for {NAMES[capability]} ({capability})"


def test_auto_never_takes_a_target_with_a_warning_or_with_special_code() -> None:
    odd = {name: TARGETS[name] for name in ("cpu", "seed", "rtx50-fp4")}
    assert [
        auto_target.fit({"ada": TARGETS["ada"], **odd}, [kind]) for kind in ("12.0", "10.0")
    ] == [
        auto_target.Fit("ada", "120-real", None),
        auto_target.Fit("ada", "100-real", None),
    ]


@pytest.mark.parametrize("kinds", [("12.0", "8.6"), ("8.6", "12.0"), ("8.6", "12.0", "8.6")])
def test_auto_builds_one_wheel_for_two_kinds_of_gpu(kinds: tuple[str, ...]) -> None:
    chosen, told = auto(*kinds)
    assert chosen.target == "rtx50+arch120-real-86-real"
    assert (chosen.archs, chosen.budget_mb) == (("120-real", "86-real"), 60)
    assert told.startswith("target auto: rtx50 with --arch 120-real;86-real, for NVIDIA GeForce ")
    assert told.count(" (") == 2
    # The same in words, so that a remedy chooses it again.
    assert choose(*shlex.split(remedies.command("wheel", chosen))[4:]) == chosen


def test_auto_leaves_the_other_options() -> None:
    chosen, _ = auto("8.9", words=("--cuda", "13.4", "--python", "3.12"))
    assert chosen.target == "ada+cuda13.4+py3.12"


@pytest.mark.parametrize(
    ("answer", "visible", "why"),
    [
        ({"error": "NVML Shared Library Not Found"}, None, "no NVIDIA driver is installed here"),
        ({"error": "Driver/library version mismatch"}, None, "(Driver/library version mismatch)"),
        ({**fakes.nvml(), "devices": []}, None, "no NVIDIA GPU"),
        (nvml("8.9"), "", "CUDA_VISIBLE_DEVICES='' hides"),
        (nvml("8.9"), "-1", "CUDA_VISIBLE_DEVICES='-1' hides"),
    ],
    ids=["no-driver", "mismatch", "no-gpu", "empty", "hidden"],
)
def test_without_a_gpu_auto_is_the_default_and_says_so(
    answer: dict[str, Any], visible: str | None, why: str
) -> None:
    options, told = auto_target.auto(TARGETS, fakes.parsed("--target", "auto"), answer, visible)
    assert spec.choose(TARGETS, options) == TARGETS["rtx50"]
    assert told.startswith("target auto: rtx50, because ")
    assert why in told


def test_a_gpu_that_is_hidden_does_not_count_for_auto() -> None:
    options, told = auto_target.auto(
        TARGETS, fakes.parsed("--target", "auto"), nvml("12.0", "6.1", "8.9"), "2"
    )
    assert options.target == "ada"
    assert "RTX 5090" not in told


def test_a_gpu_without_a_target_is_named_with_what_builds_for_it() -> None:
    problem = without_target("7.5")
    assert problem.what == "There is no target for NVIDIA GeForce RTX 2080 Ti (7.5)."
    assert problem.remedy == programs.typed(
        ["nox", "-s", "wheel", "--", "--target", "rtx50", "--arch", "75-real"]
    )
    assert choose("--arch", "75-real").archs == ("75-real",)
    assert "--arch 80-real" in without_target("8.0").remedy


def test_beside_a_gpu_with_a_target_what_builds_for_both_is_named() -> None:
    problem = without_target("8.9", "7.5")
    assert "RTX 4090" not in problem.what
    words = shlex.split(problem.remedy)[4:]
    assert words == ["--target", "ada", "--arch", "89-real;75-real"]
    assert choose(*words).archs == ("89-real", "75-real")


def test_an_architecture_of_a_newer_cuda_only_is_named_with_it() -> None:
    found = auto_target.fit({"ada": TARGETS["ada"]}, ["10.7"])
    assert found == auto_target.Fit("ada", "107-real", "13.4")
    assert choose(*found.words).cuda == "13.4"
    assert auto_target.fit({"ada": TARGETS["ada"]}, ["10.7"], "13.1") is None
    problem = without_target("7.5", "10.7", words=("--cuda", "13.1"))
    assert choose(*shlex.split(problem.remedy)[4:]).archs == ("100-real", "75-real")


@pytest.mark.parametrize("kind", ["6.1", "15.0"])
def test_a_gpu_that_cuda_13_cannot_build_for_is_said_to_be_one(kind: str) -> None:
    problem = without_target(kind)
    assert NAMES[kind] in problem.what
    assert problem.evidence.startswith("CUDA 13 cannot build for it")
    assert "--arch" not in problem.remedy
    assert "--target cpu" in problem.remedy
    assert "nox -s wheel -- --target ada" in without_target("8.9", kind).remedy


def test_auto_with_a_cuda_that_cannot_build_for_the_gpu_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        auto("8.9", words=("--cuda", "12.8"))
    assert caught.value.id == "cuda-unknown"


def test_auto_has_nothing_to_find_out_where_the_architecture_is_named() -> None:
    with pytest.raises(Problem) as caught:
        auto("8.9", words=("--arch", "89-real"))
    assert (caught.value.id, caught.value.code) == ("auto-with-arch", USAGE)


@pytest.mark.parametrize("words", [(), ("--target", "foo")])
def test_without_any_target_none_can_be_chosen(words: tuple[str, ...]) -> None:
    with raises("targets-empty"):
        spec.choose({}, fakes.parsed(*words))


def test_auto_without_any_target_is_refused() -> None:
    for answer in (nvml("8.9"), {"error": "no"}):
        with pytest.raises(Problem) as caught:
            auto_target.auto({}, fakes.parsed("--target", "auto"), answer)
        assert caught.value.id == "targets-empty"


# ---- what targets inherit, and all of them -----------------------------------------------------


def test_a_release_of_upstream_stands_once_in_targets_toml() -> None:
    versions = [line for line in TEXT.splitlines() if re.match(r"version = \"\d", line)]
    assert versions == ['version = "0.3.16"']
    newest = targets_file.load(TEXT.replace(versions[0], 'version = "0.3.36"'), "linux")
    assert {target.version for target in newest.values()} == {"0.3.36"}


def test_a_table_overrides_what_it_inherits() -> None:
    text = '[defaults]\nversion = "0.3.36"\npython = "3.12"\n' + TABLE
    assert targets_file.load(text, "linux")["one"].version == "0.3.16"
    bare = without("version").replace('python = "3.11"\n', "")
    one = targets_file.load('[defaults]\nversion = "0.3.36"\npython = "3.12"\n' + bare, "linux")[
        "one"
    ]
    assert (one.version, one.python) == ("0.3.36", "3.12")


def test_latest_in_a_table_is_the_newest_that_is_locked() -> None:
    one = targets_file.load(without("version", 'version = "latest"'), "linux")["one"]
    assert one.version == knowledge.newest_sdist()


@pytest.mark.parametrize(
    ("defaults", "id"),
    [("budget_mb = 3", "target-table-invalid"), ('version = "../x"', "target-table-invalid")],
)
def test_what_cannot_be_inherited_is_refused(defaults: str, id: str) -> None:
    bare = without("version", "") if "version" in defaults else TABLE
    assert load_refused(f"[defaults]\n{defaults}\n{bare}").id == id


def test_a_default_that_is_no_table_is_refused() -> None:
    assert load_refused("defaults = 1\n" + TABLE).id == "target-not-a-table"


def test_all_names_every_target_that_is_a_product() -> None:
    assert spec.named(TARGETS, "all") == [name for name in TARGETS if name != "seed"]
    assert spec.named(TARGETS, "cpu, rtx50") == ["cpu", "rtx50"]


def test_all_pythons_are_all_that_wheels_can_be_for() -> None:
    found = spec.matrix(TARGETS, fakes.parsed("--targets", "cpu", "--pythons", "all"))
    assert sorted(one.python for one in found) == sorted(knowledge.pythons())
    assert found[0].python == "3.11"  # the one that is built comes first
