"""The options after ``--``, and the environment variables that child processes get."""

from __future__ import annotations

import os
import re

import pytest

from sessions.command_line import parse_options, session_order
from sessions.command_line.option_list import BY_FIELD, OPTIONS, Option, takes
from sessions.shared import child_environment, errors, options
from sessions.shared.build_spec import CacheName
from sessions.shared.errors import Problem
from tests import fakes
from tests.problems import raises

SESSIONS = fakes.ROOT / "sessions"
CALLER = {
    "HOME": "/home/user",
    "PATH": "/usr/bin",
    "TMPDIR": "/scratch",
    "SYSTEMROOT": r"C:\Windows",
    "CC": "gcc-9",
    "CFLAGS": "-O0",
    "CUDA_PATH": "/usr/local/cuda",
    "LD_LIBRARY_PATH": "/opt/lib",
    "PYTHONPATH": "/opt/py",
    "PIP_INDEX_URL": "https://pypi.example/simple",
    "PIP_FIND_LINKS": "/wheels",
    "XDG_CONFIG_HOME": "/home/user/.config",
    "https_proxy": "http://proxy:3128",
    "NO_PROXY": "localhost",
    "SSL_CERT_FILE": "/etc/ssl/corp.pem",
    "CCACHE_DIR": "/shared/ccache",
    "SCCACHE_REDIS": "redis://cache",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


def test_options_that_are_not_given_have_their_defaults() -> None:
    chosen = parse_options.parse([])
    assert (chosen.target, chosen.version, chosen.cuda, chosen.arch) == (None, None, None, None)
    assert (chosen.cache, chosen.jobs, chosen.fresh, chosen.force) == ("ccache", None, False, False)


@pytest.mark.parametrize(
    ("words", "id", "named"),
    [
        (["--taget", "rtx50"], "option-unknown", "--target"),
        (["--targt=rtx50"], "option-unknown", "--target"),
        (["--dryrun"], "option-unknown", "--dry-run"),
        (["--xyzzy"], "option-unknown", "--xyzzy"),
        (["rtx50"], "option-unknown", "rtx50"),
        (["--target"], "options-wrong", "--target"),
        (["--jobs", "0"], "options-wrong", "--jobs"),
        (["--jobs", "-2"], "options-wrong", "--jobs"),
        (["--jobs", "many"], "options-wrong", "many"),
        (["--jobs", "٣"], "options-wrong", "٣"),
        (["--jobs", "9" * 5000], "options-wrong", "--jobs"),
        (["--cache", "distcc"], "options-wrong", "distcc"),
        (["--device", "gpu"], "options-wrong", "gpu"),
        (["--device", "CPU"], "options-wrong", "CPU"),
        (["--device=-1"], "options-wrong", "-1"),
        (["--device", "0,1"], "options-wrong", "0,1"),
        (["--fresh=yes"], "options-wrong", "--fresh"),
        (["--add", "cuda"], "options-wrong", "cuda"),
        (["--add", "cuda=13.4"], "options-wrong", "cuda=13.4"),
        (["--add", "numpy==1"], "options-wrong", "numpy"),
        (["--add", "cuda==../x"], "options-wrong", "../x"),
        (["--target", "cpu", "--target", "ada"], "options-wrong", "twice"),
        (["--lang", "es", "--lang", "en"], "options-wrong", "twice"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_a_wrong_option_is_named_in_the_error(words: list[str], id: str, named: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_options.parse(words)
    assert (caught.value.id, caught.value.code) == (id, errors.USAGE)
    assert named in caught.value.what + caught.value.evidence
    with pytest.raises(Problem) as caught:
        parse_options.parse(words, ["verify", "smoke"])
    assert caught.value.remedy == "see all options: nox -s verify smoke -- --help"


VALUED = [option for option in OPTIONS if option.metavar or option.choices]


@pytest.mark.parametrize("option", VALUED, ids=lambda option: option.name)
def test_an_empty_value_is_refused(option: Option) -> None:
    flag = option.flag
    for words in ([flag, ""], [flag, " "], [f"{flag}="], [f"{flag}= "]):
        with raises("options-wrong") as caught:
            parse_options.parse(words)
        assert option.flag in caught.value.what


VALUES = {
    "cmake": "GGML_CUDA_GRAPHS=ON",
    "add": "cuda==13.4",
    "cache": "none",
    "glibc": "host",
    "lang": "es",
    "families": "all",
    "device": "13",
    "rounds": "8",
    "jobs": "2",
}
NUMBERS = ("rounds", "jobs")
NEEDED = {"signers": ["--report", "r.json"]}


def words_of(option: Option) -> list[str]:
    """A command line with an option and the options that it needs."""
    value = [VALUES.get(option.name, "x")] if option in VALUED else []
    return [option.flag, *value, *NEEDED.get(option.name, [])]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_sets_the_field_of_its_name_only(option: Option) -> None:
    line = words_of(option)[: 2 if option in VALUED else 1]
    value: object = line[1] if option in VALUED else True
    if option.name in NUMBERS:
        value = int(line[1])
    if option.many:
        line, value = [*line, *line], (value, value)
    found, plain = vars(parse_options.parse(line)), vars(parse_options.parse([]))
    assert {field for field in found if found[field] != plain[field]} == {option.field}
    assert found[option.field] == value


@pytest.mark.parametrize("session", session_order.REQUIRES)
def test_a_session_takes_its_options_and_refuses_all_others(session: str) -> None:
    for option in OPTIONS:
        chain = {session} | set(session_order.closure([session], given=option.name == "wheel"))
        own = {session} if option.reach != "chain" else chain
        if own & set(option.sessions):
            parse_options.parse(words_of(option), [session])
            continue
        with raises("option-of-other-session") as caught:
            parse_options.parse(words_of(option)[:2], [session])
        assert caught.value.code == errors.USAGE
        assert option.flag in caught.value.what
        assert set(option.sessions) <= set(re.findall(r"[a-z_]+", caught.value.evidence))


OTHER, IDLE = "option-of-other-session", "option-without-effect"


@pytest.mark.parametrize(
    ("line", "asked", "id"),
    [
        ("--to URL --dry-run --jobs 3", ["publish"], OTHER),
        ("--targets cpu --dry-run", ["matrix"], OTHER),
        ("--add cuda==13.4 --dry-run", ["lock"], OTHER),
        ("--all", ["wheel"], OTHER),  # wheel runs clean first, but --all must be asked for
        ("--fresh", ["smoke"], OTHER),  # only sessions that smoke runs first take it
        ("--wheel x.whl", ["wheel"], OTHER),
        ("--wheel x.whl", ["verify", "bundle"], OTHER),
        ("--dry-run", ["clean", "wheel"], OTHER),  # the wheel would really be built
        ("--dry-run", ["wheel", "publish"], OTHER),
        ("--reproduce", ["wheel"], OTHER),
        ("--baseline seed", ["smoke"], OTHER),
        ("--lang es", ["verify"], OTHER),
        ("--device cpu", ["bundle"], OTHER),
        ("--wheel x.whl --jobs 3", ["verify"], IDLE),  # nothing is built
        ("--wheel x.whl --compiler g++ --cache none", ["verify"], IDLE),
        ("--signers keys", ["smoke"], IDLE),
        ("--signers keys", ["release"], IDLE),
        ("--report r --device cpu", ["smoke"], IDLE),
        ("--report r --model m", ["smoke"], IDLE),
        ("--report r --baseline seed", ["bench"], IDLE),
        ("--report r --rounds 8", ["bench"], IDLE),
        ("--source . --version 0.3.36", ["wheel"], IDLE),
        ("--device cpu --fresh", ["verify", "smoke"], ""),  # each is an option of one of them
        ("--report r --signers k", ["smoke"], ""),
        ("--wheel x.whl --device 1 --jobs 3", ["smoke"], ""),  # probe reads --jobs
        ("--dry-run", ["release", "publish"], ""),
        ("--all", ["clean", "wheel"], ""),
        ("--jobs 3 --compiler g++ --record d", ["bundle"], ""),
        ("-h --to x", ["wheel"], ""),  # with --help every option is accepted
    ],
)
def test_an_option_that_would_be_ignored_is_refused(line: str, asked: list[str], id: str) -> None:
    if not id:
        parse_options.parse(line.split(), asked)
        return
    with raises(id) as caught:
        parse_options.parse(line.split(), asked)
    assert caught.value.code == errors.USAGE


STAGES = {path.stem.removeprefix("main_"): path for path in SESSIONS.glob("*/main_*.py")}


@pytest.mark.parametrize("session", session_order.REQUIRES)
def test_a_session_reads_only_options_that_are_declared_for_it(session: str) -> None:
    text = STAGES[session].read_text(encoding="utf-8")
    fields = set(re.findall(r"\boptions\.(\w+)", text)) & set(BY_FIELD)
    fields |= {"fresh"} if "ctx.fresh" in text else set()
    if session == "clean":
        fields -= {"fresh"}  # an option of the session wheel, for which clean removes the tree
    assert {f for f in fields if takes(BY_FIELD[f], [session])} == fields


def test_options_and_fields_have_the_same_names() -> None:
    positional = {"dists"}  # the folders of the session index
    assert set(BY_FIELD) | positional == set(options.Options.__dataclass_fields__)
    assert len(OPTIONS) == len(BY_FIELD)
    for option in OPTIONS:
        assert set(option.sessions) <= set(session_order.REQUIRES)


def test_a_compiler_gets_only_the_variables_of_the_system() -> None:
    expected = {name: CALLER[name] for name in ("HOME", "TMPDIR", "SYSTEMROOT")}
    assert child_environment.system_environment(CALLER) == expected


def test_pip_also_gets_its_settings_proxies_certificates_and_path() -> None:
    names = "HOME TMPDIR SYSTEMROOT PATH PIP_INDEX_URL PIP_FIND_LINKS XDG_CONFIG_HOME"
    names += " https_proxy NO_PROXY SSL_CERT_FILE"
    expected = {name: CALLER[name] for name in names.split()}
    assert child_environment.pip_environment(CALLER) == expected
    assert child_environment.pip_environment({"HOME": "/h"}) == {"HOME": "/h"}


SCCACHE = ("SCCACHE_REDIS", "AWS_SECRET_ACCESS_KEY", "https_proxy", "NO_PROXY", "SSL_CERT_FILE")


@pytest.mark.parametrize(
    ("cache", "names"), [("ccache", ("CCACHE_DIR",)), ("sccache", SCCACHE), ("none", ())]
)
def test_a_cache_gets_only_its_own_settings(cache: CacheName, names: tuple[str, ...]) -> None:
    expected = {name: CALLER[name] for name in names}
    assert child_environment.cache_environment(CALLER, cache) == expected


def test_of_the_settings_of_ccache_only_those_of_its_stores_reach_it() -> None:
    ours = "COMPILER COMPILERCHECK COMPILERTYPE PREFIX PREFIX_CPP SLOPPINESS BASEDIR NOHASHDIR "
    ours += "HASHDIR IGNOREOPTIONS EXTRAFILES CONFIGPATH PATH STATSLOG HARDLINK DEPEND"
    theirs = "REMOTE_STORAGE REMOTE_ONLY RESHARE MAXSIZE DISABLE"
    env = {f"CCACHE_{name}": "x" for name in f"{ours} {theirs}".split()}
    expected = {f"CCACHE_{name}": "x" for name in theirs.split()}
    assert child_environment.cache_environment(env, "ccache") == expected


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKWHEEL_TEST", "1")
    seen = child_environment.environment()
    assert seen["BLACKWHEEL_TEST"] == "1"
    seen["BLACKWHEEL_TEST"] = "2"
    assert os.environ["BLACKWHEEL_TEST"] == "1"


def test_on_windows_names_are_in_upper_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(os, "environ", {"SystemRoot": r"C:\Windows", "Path": "C:\\"})
    assert child_environment.environment() == {"SYSTEMROOT": r"C:\Windows", "PATH": "C:\\"}


@pytest.mark.parametrize("text", ["", " ", "nonsense", "-1", "1.5", "٣", "9" * 11, "9" * 5000])
def test_an_invalid_source_date_epoch_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with raises("source-date-epoch") as caught:
        child_environment.environment()
    assert caught.value.code == errors.USAGE


def test_source_date_epoch_is_a_number_of_seconds() -> None:
    assert child_environment.source_date_epoch({"SOURCE_DATE_EPOCH": "1667997441"}) == 1667997441
    assert child_environment.source_date_epoch({}) is None
