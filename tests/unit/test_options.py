"""The command line after ``--``, and what of the caller's environment reaches whom."""

from __future__ import annotations

import os

import pytest

from sessions.core import options
from sessions.core.errors import Problem
from sessions.core.model import CacheName

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
    chosen = options.parse([])
    assert (chosen.target, chosen.version, chosen.cuda, chosen.arch) == (None, None, None, None)
    assert (chosen.cache, chosen.jobs, chosen.fresh, chosen.force) == ("ccache", None, False, False)


def test_every_option_has_a_field_of_its_name() -> None:
    line = (
        "--target a --targets s --pythons t --version b --cuda c --arch d --python e --toolkit f "
        "--source g --wheel k "
        "--device 1 --model l --baseline q --baseline r --rounds 5 --report m --sign n "
        "--signers o --compiler h --cache sccache --jobs 3 --record i --add j --to p --offline "
        "--fresh --prerelease --force --all --wheels --caches --dry-run --lang es "
        "--allow-untested-gpu --reproduce --sigstore --help"
    )
    chosen = options.parse(line.split())
    assert chosen == options.Options(
        target="a",
        targets="s",
        pythons="t",
        version="b",
        cuda="c",
        arch="d",
        python="e",
        toolkit="f",
        source="g",
        wheel="k",
        device="1",
        model="l",
        baseline=("q", "r"),
        rounds=5,
        report="m",
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
        add="j",
        to="p",
        help=True,
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--taget", "rtx50"], "--taget"),
        (["--targ", "rtx50"], "--targ"),
        (["rtx50"], "rtx50"),
        (["--target"], "--target"),
        (["--jobs", "0"], "no number of 1 or more"),
        (["--jobs", "-2"], "no number of 1 or more"),
        (["--jobs", "many"], "many"),
        (["--cache", "distcc"], "distcc"),
        (["--device", "gpu"], "'gpu' is neither the number of a card nor cpu"),
        (["--device", "CPU"], "'CPU' is neither"),
        (["--device=-1"], "'-1' is neither"),
        (["--device", "0,1"], "'0,1' is neither"),
        (["--device", ""], "'' is neither"),
        (["--fresh=yes"], "--fresh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_a_problem_that_names_it(words: list[str], named: str) -> None:
    with pytest.raises(Problem) as caught:
        options.parse(words)
    assert caught.value.what.startswith("The options after -- are wrong:")
    assert named in caught.value.what
    assert caught.value.remedy == "see all of them: nox -s probe -- --help"


@pytest.mark.parametrize("word", ["cpu", "0", "13"])
def test_a_device_is_a_number_or_the_cpu(word: str) -> None:
    assert options.parse(["--device", word]).device == word


def test_the_help_names_every_option() -> None:
    text = options.parser().format_help()
    fields = options.Options.__dataclass_fields__
    missing = [name for name in fields if f"--{name.replace('_', '-')}" not in text]
    assert missing == []


def test_a_compiler_gets_the_system_and_nothing_else() -> None:
    assert options.system_environment(CALLER) == {
        "HOME": "/home/user",
        "TMPDIR": "/scratch",
        "SYSTEMROOT": r"C:\Windows",
    }


def test_pip_gets_its_own_settings_proxies_and_certificates_too() -> None:
    given = options.pip_environment(CALLER)
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
    assert options.pip_environment({"HOME": "/h"}) == {"HOME": "/h"}


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
    assert options.cache_environment(CALLER, cache) == given


@pytest.mark.parametrize(
    "name",
    [
        "COMPILER", "COMPILERCHECK", "COMPILERTYPE", "PREFIX", "PREFIX_CPP", "SLOPPINESS",
        "BASEDIR", "NOHASHDIR", "HASHDIR", "IGNOREOPTIONS", "EXTRAFILES", "CONFIGPATH", "PATH",
        "STATSLOG", "HARDLINK", "DEPEND",
    ],
)  # fmt: skip
def test_no_setting_of_ccaches_says_which_compiler_runs_or_what_is_a_hit(name: str) -> None:
    assert options.cache_environment({f"CCACHE_{name}": "x"}, "ccache") == {}


@pytest.mark.parametrize("name", ["REMOTE_STORAGE", "REMOTE_ONLY", "RESHARE", "MAXSIZE", "DISABLE"])
def test_where_ccaches_store_is_and_how_it_is_used_is_the_users(name: str) -> None:
    given = {f"CCACHE_{name}": "x"}
    assert options.cache_environment(given, "ccache") == given


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKWHEEL_TEST", "1")
    seen = options.environment()
    assert seen["BLACKWHEEL_TEST"] == "1"
    seen["BLACKWHEEL_TEST"] = "2"
    assert os.environ["BLACKWHEEL_TEST"] == "1"


def test_names_are_in_upper_case_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(os, "environ", {"SystemRoot": r"C:\Windows", "Path": "C:\\"})
    assert options.environment() == {"SYSTEMROOT": r"C:\Windows", "PATH": "C:\\"}


@pytest.mark.parametrize("text", ["", " ", "nonsense", "-1", "1.5", "٣", "9" * 11, "9" * 5000])
def test_a_time_that_is_none_is_refused_first(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(Problem) as caught:
        options.environment()
    assert (caught.value.id, caught.value.code) == ("source-date-epoch", 2)


@pytest.mark.parametrize(
    ("env", "epoch"), [({}, None), ({"SOURCE_DATE_EPOCH": "1667997441"}, 1667997441)]
)
def test_the_callers_time_is_a_number_of_seconds(env: dict[str, str], epoch: int | None) -> None:
    assert options.source_date_epoch(env) == epoch
