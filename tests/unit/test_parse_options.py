"""The command line after ``--``, and what of the caller's environment reaches whom."""

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


def test_no_words_leave_every_choice_to_the_target() -> None:
    chosen = parse_options.parse([])
    assert (chosen.target, chosen.version, chosen.cuda, chosen.arch) == (None, None, None, None)
    assert (chosen.cache, chosen.jobs, chosen.fresh, chosen.force) == ("ccache", None, False, False)


def test_every_option_has_a_field_of_its_name() -> None:
    line = (
        "--target a --targets s --pythons t --version b --cuda c --arch d --python e --toolkit f "
        "--glibc host "
        "--source g --wheel k "
        "--device 1 --model l --baseline q --baseline r --cpu-module w --rounds 5 "
        "--report m --reports u --sign n "
        "--cmake u=v --families all "
        "--signers o --compiler h --cache sccache --jobs 3 --record i --add cuda==1 --to p "
        "--offline --fresh --prerelease --force --all --wheels --caches --dry-run --lang es "
        "--allow-untested-gpu --reproduce --sigstore --help"
    )
    chosen = parse_options.parse(line.split())
    assert chosen == options.Options(
        target="a",
        targets="s",
        pythons="t",
        version="b",
        cuda="c",
        arch="d",
        python="e",
        toolkit="f",
        glibc="host",
        source="g",
        cmake=("u=v",),
        families="all",
        wheel="k",
        device="1",
        model="l",
        baseline=("q", "r"),
        cpu_module=("w",),
        rounds=5,
        report="m",
        reports="u",
        sign="n",
        signers="o",
        compiler="h",
        cache="sccache",
        jobs=3,
        offline=True,
        fresh=True,
        prerelease=True,
        force=True,
        all=True,
        wheels=True,
        caches=True,
        dry_run=True,
        lang="es",
        allow_untested_gpu=True,
        reproduce=True,
        sigstore=True,
        record="i",
        add="cuda==1",
        to="p",
        help=True,
    )


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
def test_a_wrong_option_is_a_problem_that_names_it(words: list[str], id: str, named: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_options.parse(words)
    assert (caught.value.id, caught.value.code) == (id, errors.USAGE)
    assert named in caught.value.what + caught.value.evidence
    with pytest.raises(Problem) as caught:
        parse_options.parse(words, ["verify", "smoke"])
    assert caught.value.remedy == "see all options: nox -s verify smoke -- --help"


VALUED = [option for option in OPTIONS if option.metavar or option.choices]


@pytest.mark.parametrize("option", VALUED, ids=lambda option: option.name)
def test_no_value_may_be_empty(option: Option) -> None:
    # A variable of a shell that is not set must not mean "the default".
    flag = option.flag
    for words in ([flag, ""], [flag, " "], [f"{flag}="], [f"{flag}= "]):
        with raises("options-wrong") as caught:
            parse_options.parse(words)
        assert (caught.value.id, caught.value.code) == ("options-wrong", errors.USAGE)
        assert option.flag in caught.value.what


VALUES = {
    "cmake": "GGML_CUDA_GRAPHS=ON",
    "add": "cuda==13.4",
    "cache": "none",
    "glibc": "host",
    "lang": "es",
    "families": "all",
    "device": "0",
    "rounds": "8",
    "jobs": "2",
}
NEEDED = {"signers": ["--report", "r.json"]}


def words_of(option: Option) -> list[str]:
    """A command line with an option, and with what it needs."""
    value = [VALUES.get(option.name, "x")] if option in VALUED else []
    return [option.flag, *value, *NEEDED.get(option.name, [])]


@pytest.mark.parametrize("session", session_order.REQUIRES)
def test_a_session_takes_its_own_options_and_refuses_each_other(session: str) -> None:
    for option in OPTIONS:
        chain = {session} | set(session_order.closure([session], given=option.name == "wheel"))
        own = {session} if option.reach != "chain" else chain
        if own & set(option.sessions):
            assert getattr(parse_options.parse(words_of(option), [session]), option.field), (
                option.flag
            )
            continue
        with raises("option-of-other-session") as caught:
            parse_options.parse(words_of(option)[:2], [session])
        assert caught.value.code == errors.USAGE
        assert option.flag in caught.value.what
        assert set(option.sessions) <= set(re.findall(r"[a-z_]+", caught.value.evidence))


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("--to URL --dry-run --jobs 3", ["publish"]),
        ("--targets cpu --dry-run", ["matrix"]),
        ("--add cuda==13.4 --dry-run", ["lock"]),
        ("--all", ["wheel"]),  # it runs clean first, which would take it
        ("--fresh", ["smoke"]),  # of sessions that smoke runs first, not of its own
        ("--wheel x.whl", ["wheel"]),
        ("--wheel x.whl", ["verify", "bundle"]),
        ("--dry-run", ["clean", "wheel"]),  # the wheel would really be built
        ("--dry-run", ["wheel", "publish"]),
        ("--reproduce", ["wheel"]),
        ("--baseline seed", ["smoke"]),
        ("--lang es", ["verify"]),
        ("--device cpu", ["bundle"]),
    ],
)
def test_what_a_session_would_ignore_is_refused(line: str, asked: list[str]) -> None:
    with raises("option-of-other-session"):
        parse_options.parse(line.split(), asked)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("--wheel x.whl --jobs 3", ["verify"]),  # nothing is built
        ("--wheel x.whl --compiler g++ --cache none", ["verify"]),
        ("--signers keys", ["smoke"]),
        ("--signers keys", ["release"]),
        ("--report r --device cpu", ["smoke"]),
        ("--report r --model m", ["smoke"]),
        ("--report r --baseline seed", ["bench"]),
        ("--report r --rounds 8", ["bench"]),
        ("--source . --version 0.3.36", ["wheel"]),
    ],
)
def test_an_option_without_effect_beside_another_is_refused(line: str, asked: list[str]) -> None:
    with raises("option-without-effect") as caught:
        parse_options.parse(line.split(), asked)
    assert (caught.value.id, caught.value.code) == ("option-without-effect", errors.USAGE)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("--device cpu --fresh", ["verify", "smoke"]),  # each from one of them
        ("--report r --signers k", ["smoke"]),
        ("--wheel x.whl --device 1 --jobs 3", ["smoke"]),  # probe reads --jobs
        ("--dry-run", ["release", "publish"]),
        ("--all", ["clean", "wheel"]),
        ("--jobs 3 --compiler g++ --record d", ["bundle"]),
    ],
)
def test_several_sessions_take_what_one_of_them_takes(line: str, asked: list[str]) -> None:
    parse_options.parse(line.split(), asked)


def test_help_is_given_beside_anything() -> None:
    assert parse_options.parse(["-h", "--to", "x"], ["wheel"]).help
    assert parse_options.parse(["--help"], ["lock"]).help


STAGES = {path.stem.removeprefix("main_"): path for path in SESSIONS.glob("*/main_*.py")}


@pytest.mark.parametrize("session", session_order.REQUIRES)
def test_a_session_reads_no_option_that_is_not_declared_its_own(session: str) -> None:
    text = STAGES[session].read_text(encoding="utf-8")
    fields = set(re.findall(r"\boptions\.(\w+)", text)) & set(BY_FIELD)
    fields |= {"fresh"} if "ctx.fresh" in text else set()
    if session == "clean":
        fields -= {"fresh"}  # the session wheel's, for which it removes the tree
    assert {f for f in fields if takes(BY_FIELD[f], [session])} == fields


@pytest.mark.parametrize("word", ["cpu", "0", "13"])
def test_a_device_is_a_number_or_the_cpu(word: str) -> None:
    assert parse_options.parse(["--device", word]).device == word


def test_every_declaration_is_a_field_and_every_field_declared() -> None:
    positional = {"dists"}  # the folders that the session index takes
    assert set(BY_FIELD) | positional == set(options.Options.__dataclass_fields__)
    assert len(OPTIONS) == len(BY_FIELD)
    for option in OPTIONS:
        assert set(option.sessions) <= set(session_order.REQUIRES)


def test_a_compiler_gets_the_system_and_nothing_else() -> None:
    assert child_environment.system_environment(CALLER) == {
        "HOME": "/home/user",
        "TMPDIR": "/scratch",
        "SYSTEMROOT": r"C:\Windows",
    }


def test_pip_gets_its_own_settings_proxies_and_certificates_too() -> None:
    given = child_environment.pip_environment(CALLER)
    assert set(given) == {
        "HOME",
        "TMPDIR",
        "SYSTEMROOT",
        "PATH",
        "PIP_INDEX_URL",
        "PIP_FIND_LINKS",
        "XDG_CONFIG_HOME",
        "https_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
    }
    assert all(given[name] == CALLER[name] for name in given)


def test_pip_without_a_path_gets_none() -> None:
    assert child_environment.pip_environment({"HOME": "/h"}) == {"HOME": "/h"}


@pytest.mark.parametrize(
    ("cache", "given"),
    [
        ("ccache", {"CCACHE_DIR": "/shared/ccache"}),
        (
            "sccache",
            {
                "SCCACHE_REDIS": "redis://cache",
                "AWS_SECRET_ACCESS_KEY": CALLER["AWS_SECRET_ACCESS_KEY"],
                **{name: CALLER[name] for name in ("https_proxy", "NO_PROXY", "SSL_CERT_FILE")},
            },
        ),
        ("none", {}),
    ],
)
def test_a_cache_gets_its_own_settings_alone(cache: CacheName, given: dict[str, str]) -> None:
    assert child_environment.cache_environment(CALLER, cache) == given


@pytest.mark.parametrize(
    "name",
    [
        "COMPILER", "COMPILERCHECK", "COMPILERTYPE", "PREFIX", "PREFIX_CPP", "SLOPPINESS",
        "BASEDIR", "NOHASHDIR", "HASHDIR", "IGNOREOPTIONS", "EXTRAFILES", "CONFIGPATH", "PATH",
        "STATSLOG", "HARDLINK", "DEPEND",
    ],
)  # fmt: skip
def test_no_setting_of_ccaches_says_which_compiler_runs_or_what_is_a_hit(name: str) -> None:
    assert child_environment.cache_environment({f"CCACHE_{name}": "x"}, "ccache") == {}


@pytest.mark.parametrize("name", ["REMOTE_STORAGE", "REMOTE_ONLY", "RESHARE", "MAXSIZE", "DISABLE"])
def test_where_ccaches_store_is_and_how_it_is_used_is_the_users(name: str) -> None:
    given = {f"CCACHE_{name}": "x"}
    assert child_environment.cache_environment(given, "ccache") == given


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKWHEEL_TEST", "1")
    seen = child_environment.environment()
    assert seen["BLACKWHEEL_TEST"] == "1"
    seen["BLACKWHEEL_TEST"] = "2"
    assert os.environ["BLACKWHEEL_TEST"] == "1"


def test_names_are_in_upper_case_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(os, "environ", {"SystemRoot": r"C:\Windows", "Path": "C:\\"})
    assert child_environment.environment() == {"SYSTEMROOT": r"C:\Windows", "PATH": "C:\\"}


@pytest.mark.parametrize("text", ["", " ", "nonsense", "-1", "1.5", "٣", "9" * 11, "9" * 5000])
def test_a_time_that_is_none_is_refused_first(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with raises("source-date-epoch") as caught:
        child_environment.environment()
    assert (caught.value.id, caught.value.code) == ("source-date-epoch", 2)


@pytest.mark.parametrize(
    ("env", "epoch"), [({}, None), ({"SOURCE_DATE_EPOCH": "1667997441"}, 1667997441)]
)
def test_the_callers_time_is_a_number_of_seconds(env: dict[str, str], epoch: int | None) -> None:
    assert child_environment.source_date_epoch(env) == epoch
