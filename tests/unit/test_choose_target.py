"""``targets.toml``, the options that override it, and --target auto."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sessions.shared import command_text, errors, knowledge, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.errors import USAGE, Problem
from sessions.targets import auto_target, choose_target, targets_file
from tests import fakes
from tests.problems import raises

TEXT = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
TARGETS = targets_file.load(TEXT, "linux")
TABLE = (
    '[one]\nsummary = "s"\nversion = "0.3.16"\narchs = ["120-real"]\npython = "3.11"\n'
    'cuda = "13.1"\nbudget_mb = 30\n'
)


def choose(*words: str) -> BuildSpec:
    return choose_target.choose(TARGETS, fakes.parsed(*words))


def refused(id: str, *words: str) -> Problem:
    with raises(id) as caught:
        choose(*words)
    assert caught.value.code == USAGE
    return caught.value


def again(command: str) -> BuildSpec:
    """The spec that a command line chooses: nox -s SESSION -- OPTIONS."""
    return choose(*shlex.split(command)[4:])


def test_the_targets_of_targets_toml() -> None:
    assert " ".join(TARGETS) == "rtx50 rtx50-fp4 b200 hopper ada ampere seed cpu"


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_can_be_chosen_and_its_toolkit_is_locked(name: str) -> None:
    assert choose("--target", name) == TARGETS[name]
    if cuda := TARGETS[name].cuda:
        assert knowledge.toolkit_lock(cuda).is_file()


def test_without_options_the_target_is_rtx50() -> None:
    chosen = choose()
    assert (chosen.target, chosen.version, chosen.cuda) == ("rtx50", "0.3.16", "13.1")
    assert (chosen.archs, chosen.python) == (("120-real",), "3.11")
    assert (chosen.toolkit, chosen.source, chosen.cache) == ("pypi", None, "ccache")


def test_only_the_target_seed_has_a_warning_and_ptx() -> None:
    assert [name for name, target in TARGETS.items() if target.warning] == ["seed"]
    assert TARGETS["seed"].archs == ("100",)
    assert all(a.endswith("-real") for n, t in TARGETS.items() if n != "seed" for a in t.archs)


def test_the_platform_is_that_of_the_argument() -> None:
    assert targets_file.load(TABLE, "windows")["one"].platform == "windows"


def without(field: str, line: str = "") -> str:
    """The table without a field, or with another line instead."""
    lines = TABLE.splitlines(keepends=True)
    return "".join(kept for kept in lines if not kept.startswith(f"{field} =")) + line + "\n"


def load_refused(text: str, id: str = "target-table-invalid") -> Problem:
    with raises(id) as caught:
        targets_file.load(text, "linux")
    assert caught.value.code == USAGE
    return caught.value


def named(problem: Problem) -> set[str]:
    """The fields that the evidence names."""
    return {line.split(": ")[0] for line in problem.evidence.splitlines()}


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
        ('glibc = "2.17"', "glibc"),
    ],
)
def test_a_wrong_value_in_a_table_is_named(line: str, field: str) -> None:
    assert named(load_refused(without(line.split(" = ")[0], line))) == {f"one.{field}"}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (TABLE + 'arch = "120"\n', {"one"}),
        (TABLE + 'target = "two"\n', {"one"}),
        (without("version"), {"one.version"}),
        (TABLE.replace("python", "pyhton"), {"one.python", "one"}),
        (without("cuda"), {"one.archs"}),
        (
            without("cuda", 'device_features = ["HMMA"]').replace('["120-real"]', "[]"),
            {"one.device_features"},
        ),
        ("[one]\n", {f"one.{f}" for f in ("summary", "version", "archs", "python", "budget_mb")}),
    ],
    ids=["unknown", "reserved", "missing", "misspelt", "no-cuda", "features-of-cpu", "nothing"],
)
def test_unknown_missing_and_unsuitable_fields_are_named(text: str, fields: set[str]) -> None:
    assert named(load_refused(text)) == fields


BAD_NAMES = "rtx50+mine ../../x a/b .. a.b RTX50 -x x- é aux com1 nul simple cu131-sm120 x\\ny"


@pytest.mark.parametrize("name", ["", "a b", "x" * 41, *BAD_NAMES.split()])
def test_a_name_that_cannot_be_a_folder_in_dist_is_refused(name: str) -> None:
    load_refused(TABLE.replace("[one]", f'["{name}"]'))


@pytest.mark.parametrize("name", ["rtx50", "rtx50-fp4", "1", "cu131", "x" * 40])
def test_a_name_may_have_letters_digits_and_hyphens(name: str) -> None:
    assert list(targets_file.load(TABLE.replace("[one]", f"[{name}]"), "linux")) == [name]


@pytest.mark.parametrize(
    ("text", "id", "evidence"),
    [
        (TABLE + TABLE, "targets-not-toml", "one"),
        (TABLE + "budget_mb = 31\n", "targets-not-toml", "line 8"),
        ("[one\n", "targets-not-toml", "line 1"),
        ("a = " + "[" * 5000, "targets-not-toml", ""),
        ("a = " + "1" * 5000, "targets-not-toml", ""),
        ("one = 1\n", "target-not-a-table", ""),
        ("[[one]]\n", "target-not-a-table", ""),
        ("defaults = 1\n" + TABLE, "target-not-a-table", ""),
        # What cannot be inherited.
        ("[defaults]\nbudget_mb = 3\n" + TABLE, "target-table-invalid", "budget_mb"),
        (
            '[defaults]\nversion = "../x"\n' + without("version"),
            "target-table-invalid",
            "one.version",
        ),
    ],
    ids=str,
)
def test_a_file_without_valid_tables_is_refused(text: str, id: str, evidence: str) -> None:
    assert evidence in load_refused(text, id).evidence


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("--arch 120-real", "rtx50"),
        ("--version 0.3.16 --cuda 13.1 --python 3.11 --glibc 2.28", "rtx50"),
        ("--cache none --jobs 3 --fresh --offline --compiler /usr/bin/g++-11", "rtx50"),
        ("--arch 90-real", "rtx50+arch90-real"),
        ("--arch '120-real;90-real'", "rtx50+arch120-real-90-real"),
        ("--version 0.3.36", "rtx50+v0.3.36"),
        ("--cuda 13.4", "rtx50+cuda13.4"),
        ("--cuda 13.2 --force", "rtx50+cuda13.2"),
        ("--python 3.12", "rtx50+py3.12"),
        ("--glibc host", "rtx50+glibchost"),
        ("--toolkit system", "rtx50+toolkit-system"),
        ("--toolkit '/opt/my cuda'", "rtx50+toolkit-my_cuda"),
        ("--source '/src/llama cpp'", "rtx50+source-llama_cpp"),
        ("--version 0.4.0 --source /src/mine", "rtx50+v0.4.0+source-mine"),
        ("--cmake GGML_CUDA_GRAPHS=OFF", "rtx50+cmake-GGML_CUDA_GRAPHS-OFF"),
        ("--target ada --version 0.3.36 --cuda 13.4", "ada+v0.3.36+cuda13.4"),
    ],
)
def test_a_spec_has_the_name_and_the_options_of_what_it_builds(line: str, label: str) -> None:
    spec = choose(*shlex.split(line))
    assert spec.target == label
    assert again(command_text.command("smoke", spec)).target == label
    if label != "rtx50":
        own = line if line.startswith("--target") else f"--target rtx50 {line}"
        assert spec.arguments == tuple(shlex.split(own))
    assert command_text.command("release", spec, "--fresh").endswith(" --fresh")


def test_a_relative_source_is_named_for_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert choose("--source", ".").target == "rtx50+source-mine"


def test_cuda_13_2_is_refused_without_force() -> None:
    problem = refused("cuda-refused", "--cuda", "13.2")
    assert "ggml-org/llama.cpp#21255" in problem.what
    assert "--force" in problem.remedy
    assert "--force" not in choose("--cuda", "13.4", "--force").arguments


@pytest.mark.parametrize(
    ("line", "id", "evidence", "remedy"),
    [
        ("--target rtx60", "target-unknown", "rtx50, rtx50-fp4", "--target rtx50"),
        *((f"--cuda {n}", "cuda-unknown", "13.1", "--cuda") for n in ("12.8", "14.0", "13")),
        ("--arch 107-real", "arch-not-in-cuda", "120", "--cuda"),
        ("--arch '120-real;120-real'", "arch-twice", "120-real;120-real", ""),
        ("--arch '120;120-real'", "arch-twice", "", ""),
        ("--arch 120-virtual,120", "arch-twice", "", ""),
        ("--arch '120-real;12.0'", "arch-twice", "", ""),  # the same in another form
        ("--version 0.3.17", "version-not-locked", "0.3.16", "--add llama-cpp-python==0.3.17"),
        ("--target cpu --arch 120-real", "arch-for-cpu-target", "", "--target rtx50"),
        ("--target cpu --toolkit system", "cpu-target-with-toolkit", "", "--toolkit"),
        ("--target cpu --cuda 13.1", "target-without-arch", "", "--arch"),
        *(
            (f"--python {n}", "python-invalid", "", "3.11")
            for n in ("3", "2.7", "python3.11", "3.11.2", "3.x")
        ),
        *(
            (f"--python {n}", "python-unknown", "3.11", "--python")
            for n in ("3.7", "3.99", "3.011")
        ),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(
    line: str, id: str, evidence: str, remedy: str
) -> None:
    problem = refused(id, *shlex.split(line))
    assert evidence in problem.evidence
    assert remedy in problem.remedy


def test_an_architecture_of_a_newer_cuda_and_three_outputs_of_one_are_accepted() -> None:
    assert choose("--arch", "107-real", "--cuda", "13.4").archs == ("107-real",)
    assert len(choose("--arch", "120-real;120-virtual;120a-real").archs) == 3


@pytest.mark.parametrize(
    "arch", ["130-real", "sm_130", "120-sass", "120x", "native", "1.2", "12", "sm120b", ""]
)
def test_an_unknown_architecture_is_refused(arch: str) -> None:
    problem = refused("arch-unknown", "--arch", f"120-real;{arch}")
    assert re.search(r"^120 \(Blackwell: RTX 50", problem.evidence, re.MULTILINE)
    assert max(map(len, str(problem).splitlines())) < 200


@pytest.mark.parametrize("version", ["newest", "v", "vv0.3.16", "Latest"])
def test_no_lock_is_offered_for_a_text_that_is_not_a_version(version: str) -> None:
    problem = refused("version-not-locked", "--version", version)
    assert "nox -s lock" not in problem.remedy
    assert "latest" in problem.remedy


def test_only_a_wheel_for_linux_has_a_glibc() -> None:
    text = TABLE.replace("budget_mb", 'glibc = "host"\nbudget_mb')
    for table, old in ((TABLE, True), (text, False)):
        assert targets_file.load(table, "linux")["one"].old_glibc is old
        windows = targets_file.load(table, "windows")
        assert not windows["one"].old_glibc
        with raises("glibc-on-windows"):
            choose_target.choose(windows, fakes.parsed("--glibc", "2.28"))


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
        choose_target.choose(TARGETS, fakes.parsed(target=name))
    problem = caught.value
    assert ("did you mean" in problem.evidence) is (near is not None)
    assert problem.remedy.endswith(f"nox -s wheel -- {near or '--target rtx50'}")
    assert problem.remedy.startswith("choose one of those") is (near is None)


@pytest.mark.parametrize("field", ["version", "cuda", "arch", "python"])
def test_an_empty_value_is_not_the_default(field: str) -> None:
    with pytest.raises(Problem) as caught:
        choose_target.choose(TARGETS, fakes.parsed(**{field: ""}))
    assert caught.value.code == USAGE


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
        ("120-real;90a-real", ("120-real", "90a-real")),
        ("120-real,90a-real", ("120-real", "90a-real")),
    ],
)
def test_an_architecture_may_have_the_form_of_nvcc_or_pytorch(
    given: str, archs: tuple[str, ...]
) -> None:
    assert choose("--arch", given).archs == archs
    if archs == ("120-real",):
        assert choose("--arch", given) == choose()


@pytest.mark.parametrize(
    ("line", "budget"),
    [
        ("", 30),
        ("--arch 90-real", 30),
        ("--arch 120-real;86-real", 60),
        ("--arch 120-real;89-real;86-real", 90),
        ("--arch 120", 60),  # machine code and PTX
        ("--target seed", 45),
        ("--target seed --arch 100-real", 45),
        ("--target seed --arch 100;120-real", 67),
        ("--target cpu", 12),
    ],
)
def test_the_size_budget_grows_with_the_architectures(line: str, budget: int) -> None:
    assert choose(*line.split()).budget_mb == budget


def test_a_version_may_be_written_as_its_tag() -> None:
    assert choose("--version", "v0.3.16") == choose()


def test_the_latest_version_is_the_newest_that_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("--version", "latest").version == knowledge.newest_sdist()
    rows = dict.fromkeys(("0.3.9", "0.3.100", "0.3.36"))
    monkeypatch.setattr(knowledge, "sdists", lambda: rows)
    assert knowledge.newest_sdist() == "0.3.100"


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
    """The answer of NVML on a machine with GPUs of these compute capabilities."""
    gpus = [
        fakes.nvml_gpu(index=at, name=NAMES[kind], compute_capability=kind)
        for at, kind in enumerate(capabilities)
    ]
    return {**fakes.nvml(), "devices": gpus}


def auto(*capabilities: str, line: str = "") -> tuple[BuildSpec, str]:
    """The spec of --target auto with other options, and the line about the choice."""
    asked = fakes.parsed("--target", "auto", *line.split())
    options, why = auto_target.auto(TARGETS, asked, nvml(*capabilities))
    return choose_target.choose(TARGETS, options), why


def without_target(*capabilities: str, line: str = "") -> Problem:
    with raises("gpu-without-target") as caught:
        auto(*capabilities, line=line)
    assert caught.value.code == errors.ENVIRONMENT
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
        chosen, why = auto(*[capability] * count)
        assert chosen == TARGETS[target]
        assert why == f"target auto: {target}, for {NAMES[capability]} ({capability})"


def test_auto_never_takes_a_target_with_a_warning_or_with_special_code() -> None:
    targets = {name: TARGETS[name] for name in ("ada", "cpu", "seed", "rtx50-fp4")}
    for kind, arch in (("12.0", "120-real"), ("10.0", "100-real")):
        assert auto_target.fit(targets, [kind]) == auto_target.Fit("ada", arch, None)


@pytest.mark.parametrize("kinds", [("12.0", "8.6"), ("8.6", "12.0"), ("8.6", "12.0", "8.6")])
def test_auto_builds_one_wheel_for_two_kinds_of_gpu(kinds: tuple[str, ...]) -> None:
    chosen, why = auto(*kinds)
    assert chosen.target == "rtx50+arch120-real-86-real"
    assert (chosen.archs, chosen.budget_mb) == (("120-real", "86-real"), 60)
    assert why.startswith("target auto: rtx50 with --arch 120-real;86-real, for NVIDIA GeForce ")
    assert why.count(" (") == 2
    assert again(command_text.command("wheel", chosen)) == chosen


def test_auto_keeps_the_other_options() -> None:
    chosen, _ = auto("8.9", line="--cuda 13.4 --python 3.12")
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
    options, line = auto_target.auto(TARGETS, fakes.parsed("--target", "auto"), answer, visible)
    assert choose_target.choose(TARGETS, options) == TARGETS["rtx50"]
    assert line.startswith("target auto: rtx50, because ")
    assert why in line


def test_a_hidden_gpu_does_not_count_for_auto() -> None:
    answer = nvml("12.0", "6.1", "8.9")
    options, line = auto_target.auto(TARGETS, fakes.parsed("--target", "auto"), answer, "2")
    assert options.target == "ada"
    assert "RTX 5090" not in line


def test_the_error_for_a_gpu_without_a_target_names_a_command_that_builds_for_it() -> None:
    problem = without_target("7.5")
    assert problem.what == "There is no target for NVIDIA GeForce RTX 2080 Ti (7.5)."
    assert problem.remedy == programs.typed(
        ["nox", "-s", "wheel", "--", "--target", "rtx50", "--arch", "75-real"]
    )
    assert choose("--arch", "75-real").archs == ("75-real",)
    assert "--arch 80-real" in without_target("8.0").remedy


def test_the_command_builds_for_the_other_gpu_too() -> None:
    problem = without_target("8.9", "7.5")
    assert "RTX 4090" not in problem.what
    assert again(problem.remedy).target == "ada+arch89-real-75-real"


def test_the_command_names_a_newer_cuda_if_the_architecture_needs_it() -> None:
    found = auto_target.fit({"ada": TARGETS["ada"]}, ["10.7"])
    assert found == auto_target.Fit("ada", "107-real", "13.4")
    assert choose(*found.words).cuda == "13.4"
    assert auto_target.fit({"ada": TARGETS["ada"]}, ["10.7"], "13.1") is None
    problem = without_target("7.5", "10.7", line="--cuda 13.1")
    assert again(problem.remedy).archs == ("100-real", "75-real")


@pytest.mark.parametrize("kind", ["6.1", "15.0"])
def test_no_command_is_named_for_a_gpu_that_cuda_13_cannot_build_for(kind: str) -> None:
    problem = without_target(kind)
    assert NAMES[kind] in problem.what
    assert problem.evidence.startswith("CUDA 13 cannot build for it")
    assert "--arch" not in problem.remedy
    assert "--target cpu" in problem.remedy
    assert "nox -s wheel -- --target ada" in without_target("8.9", kind).remedy


@pytest.mark.parametrize(
    ("line", "id"), [("--cuda 12.8", "cuda-unknown"), ("--arch 89-real", "auto-with-arch")]
)
def test_auto_with_an_unsuitable_option_is_refused(line: str, id: str) -> None:
    with raises(id) as caught:
        auto("8.9", line=line)
    assert caught.value.code == USAGE


def test_without_targets_none_can_be_chosen() -> None:
    for words in ((), ("--target", "foo")):
        with raises("targets-empty"):
            choose_target.choose({}, fakes.parsed(*words))
    for answer in (nvml("8.9"), {"error": "no"}):
        with raises("targets-empty"):
            auto_target.auto({}, fakes.parsed("--target", "auto"), answer)


# ---- [defaults], --targets and --pythons --------------------------------------------------------


def test_targets_toml_names_the_release_of_upstream_once() -> None:
    versions = [line for line in TEXT.splitlines() if re.match(r"version = \"\d", line)]
    assert versions == ['version = "0.3.16"']
    newest = targets_file.load(TEXT.replace(versions[0], 'version = "0.3.36"'), "linux")
    assert {target.version for target in newest.values()} == {"0.3.36"}


def test_a_table_overrides_what_it_inherits() -> None:
    defaults = '[defaults]\nversion = "0.3.36"\npython = "3.12"\n'
    one = targets_file.load(defaults + without("python"), "linux")["one"]
    assert (one.version, one.python) == ("0.3.16", "3.12")


def test_latest_in_a_table_is_the_newest_that_is_locked() -> None:
    one = targets_file.load(without("version", 'version = "latest"'), "linux")["one"]
    assert one.version == knowledge.newest_sdist()


def test_all_names_every_product() -> None:
    assert choose_target.named(TARGETS, "all") == [name for name in TARGETS if name != "seed"]
    assert choose_target.named(TARGETS, "cpu, rtx50") == ["cpu", "rtx50"]


def test_all_pythons_begin_with_the_one_that_is_built() -> None:
    found = choose_target.matrix(TARGETS, fakes.parsed("--targets", "cpu", "--pythons", "all"))
    assert sorted(one.python for one in found) == sorted(knowledge.pythons())
    assert found[0].python == "3.11"
