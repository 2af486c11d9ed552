"""publish: what is printed, where it goes, and what each failure of an upload stands for."""

from __future__ import annotations

import dataclasses
import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessions.command_line import option_list
from sessions.fetch import build_tools
from sessions.release import dist_contents, dist_folder, main_publish, server_listing
from sessions.release.index import builder
from sessions.release.main_publish import Destination
from sessions.release.model import PythonWheel, Release
from sessions.shared import child_environment, console, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from tests import fakes, tiny
from tests.problems import raises

URL = "https://wheels.example.org/cu131-sm90/"
SECRET = "do not show this"
PYPIRC = f"""
[distutils]
index-servers = ours other nowhere

[ours]
repository = https://wheels.example.org/cu131-sm90
username = ana
password = {SECRET}

[other]
repository: https://other.example.org/legacy/

[nowhere]
username = ana
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for name in ("say", "warn", "done"):
        monkeypatch.setattr(console, name, lines.append)
    return lines


def context(root: Path, *words: str, **env: str) -> Context:
    ctx = fakes.context(root, options=fakes.parsed(*words))
    targets = (ctx.options.target or ctx.spec.target).split(",")
    specs = tuple(dataclasses.replace(ctx.spec, target=target) for target in targets)
    return dataclasses.replace(ctx, env={"HOME": str(root), **env}, spec=specs[0], specs=specs)


# ---- Which ------------------------------------------------------------------------------------


def test_nothing_released_is_a_problem(tmp_path: Path) -> None:
    with raises("publish-nothing-released") as caught:
        main_publish.main(context(tmp_path))
    assert caught.value.remedy == "nox -s release -- --target NAME"


def test_all_are_meant_unless_targets_are_named(tmp_path: Path) -> None:
    tiny.all_cards(tmp_path / "dist")
    found = builder.releases(tmp_path / "dist")
    everything = ["cpu", "hopper", "rtx50", "rtx50-fp4"]
    assert [r.target for r in main_publish.choose(found, ())] == everything
    assert [r.target for r in main_publish.choose(found, specs("rtx50", "cpu"))] == ["rtx50", "cpu"]
    with raises("publish-target-not-released") as caught:
        main_publish.choose(found, specs("cpu", "ada"))
    assert caught.value.evidence.endswith("cpu, hopper, rtx50, rtx50-fp4")
    assert caught.value.remedy == "nox -s release -- --target ada"


def specs(*targets: str) -> tuple[BuildSpec, ...]:
    return tuple(fakes.spec(target=target) for target in targets)


def test_to_release_a_target_of_options_these_are_named(tmp_path: Path) -> None:
    tiny.all_cards(tmp_path / "dist")
    spec = fakes.spec(base="rtx50", target="rtx50+py3.12", overrides=("--python", "3.12"))
    with raises("publish-target-not-released") as caught:
        main_publish.choose(builder.releases(tmp_path / "dist"), [spec])
    assert caught.value.remedy == "nox -s release -- --target rtx50 --python 3.12"


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        ((), ()),
        (("--to", URL), ()),
        (("--target", "hopper"), ("hopper",)),
        (("--target", "hopper,cpu"), ("hopper", "cpu")),
    ],
)
def test_the_targets_that_are_meant(
    tmp_path: Path, words: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    found = main_publish.named_targets(context(tmp_path, *words))
    assert tuple(spec.target for spec in found) == targets


@pytest.mark.parametrize(
    "option",
    [
        option
        for option in option_list.OPTIONS
        if {"publish", "matrix"} <= {*option.sessions} and option.name not in ("force", "help")
    ],
    ids=lambda option: option.name,
)
def test_no_option_that_chooses_a_target_means_every_release(
    option: option_list.Option, tmp_path: Path
) -> None:
    value = {"cmake": "GGML_CUDA_FA_ALL_QUANTS=ON", "glibc": "host"}.get(option.name, "x")
    ctx = fakes.context(tmp_path, option.flag, value)
    assert main_publish.named_targets(dataclasses.replace(ctx, specs=(ctx.spec,))) == (ctx.spec,)


def test_an_override_means_the_target_it_makes(tmp_path: Path) -> None:
    ctx = context(tmp_path, "--version", "0.3.36")
    found = (dataclasses.replace(ctx.spec, target="rtx50+v0.3.36"),)
    assert main_publish.named_targets(dataclasses.replace(ctx, specs=found)) == found


# ---- A dry run ---------------------------------------------------------------------------------


def test_a_dry_run_names_every_upload_and_connects_to_nobody(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a dry run did something")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for module, name in ((programs, "capture"), (build_tools, "own")):
        monkeypatch.setattr(module, name, refuse)
    releases = [
        tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",)),
        tiny.release(tmp_path / "dist", "cpu", None),
    ]
    before = sorted(tmp_path.rglob("*"))
    main_publish.main(context(tmp_path, "--target", "hopper", "--to", URL, "--dry-run"))
    text = "\n".join(said)
    assert URL in text
    assert releases[0].sha256 in text
    assert f"dist/hopper/{releases[0].file}" in text
    assert "dist/cpu" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_what_the_upload_would_refuse(tmp_path: Path) -> None:
    tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    with raises("publish-url-invalid"):
        main_publish.main(
            context(tmp_path, "--target", "hopper", "--to", "nowhere at all", "--dry-run")
        )
    with raises("publish-target-not-released"):
        main_publish.main(context(tmp_path, "--target", "ada", "--to", URL, "--dry-run"))


# ---- What is printed --------------------------------------------------------------------------


def test_the_commands_are_for_the_files_that_lie_there(tmp_path: Path, said: list[str]) -> None:
    dist = tmp_path / "dist"
    tiny.all_cards(dist)
    tiny.indexed(dist)
    main_publish.main(context(tmp_path))
    text = "\n".join(said)
    commands = [line for line in text.splitlines() if re.match("nox|twine|uv|gh", line)]
    assert len(commands) == 4 * 5
    named = {word for line in commands for word in shlex.split(line) if word.startswith("dist/")}
    for word in named:
        assert (tmp_path / word).is_file()
    wheels = {f"dist/{r.target}/{r.file}" for r in builder.releases(dist)}
    assert wheels <= named
    assert {Path(path).name for path in named if path not in wheels} == {
        "WHEEL.md",
        "SHA256SUMS",
        "release.json",
    }
    assert text.count("UNTESTED") == 1


def test_the_commands_of_one_release(tmp_path: Path, said: list[str]) -> None:
    release = tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    main_publish.main(context(tmp_path, "--target", "hopper"))
    wheel = f"dist/hopper/{release.file}"
    lines = "\n".join(said).splitlines()
    assert "nox -s publish -- --target hopper --to URL" in lines
    assert f"twine upload --repository-url URL {wheel}" in lines
    assert f"uv publish --publish-url URL {wheel}" in lines
    tag = "v0.3.16-hopper"
    title = programs.typed([f"llama-cpp-python {tag}"])  # as the system's own shell has it quoted
    notes = "--notes-file dist/hopper/WHEEL.md"
    assert f"gh release create {tag} --title {title} --target {'c' * 40} {notes}" in lines
    documents = "dist/hopper/SHA256SUMS dist/hopper/WHEEL.md dist/hopper/release.json"
    assert f"gh release upload {tag} {wheel} {documents}" in lines


def test_the_wheels_of_other_pythons_are_published_too(tmp_path: Path) -> None:
    release = tiny.release(tmp_path, "cpu", None)
    more = PythonWheel("3.12", "a-cp312.whl", "b" * 64, 1)
    release = dataclasses.replace(release, pythons=(more,))
    wheels = f"dist/cpu/{release.file} dist/cpu/a-cp312.whl"
    lines = main_publish.commands(release)
    assert f"twine upload --repository-url URL {wheels}" in lines
    assert f"uv publish --publish-url URL {wheels}" in lines
    assert lines[-1].startswith(f"gh release upload v0.3.16-cpu {wheels} dist/cpu/SHA256SUMS")


def test_a_release_without_a_gpu_has_notes_all_the_same(tmp_path: Path) -> None:
    release = dataclasses.replace(tiny.release(tmp_path, "cpu", None), files={})
    assert shlex.split(created(release))[-2:] == ["--notes", f"dist/cpu/{release.file}"]
    untested = dataclasses.replace(release, tested=False)
    assert shlex.split(created(untested))[-1].endswith(".whl, UNTESTED on such a GPU")


@pytest.mark.parametrize("card", ["WHEEL.md", "WHEEL.es.md"])
def test_the_notes_are_the_gpu_in_the_language_there_is(tmp_path: Path, card: str) -> None:
    release = tiny.release(tmp_path, "cpu", None, tested=False)
    release = dataclasses.replace(release, files={"SHA256SUMS": "0" * 64, card: "0" * 64})
    assert created(release).endswith(f"--notes-file dist/cpu/{card}")


def created(release: Release) -> str:
    return next(
        line for line in main_publish.commands(release) if line.startswith("gh release create")
    )


# ---- Where it goes ----------------------------------------------------------------------------


def test_an_address_goes_to_twine_as_it_is() -> None:
    place = main_publish.destination(URL, "", {})
    assert (place.url, place.words) == (URL, ("--repository-url", URL))
    assert (place.user, place.secret) == ("", "")


def test_an_address_that_pypirc_has_takes_its_credentials() -> None:
    place = main_publish.destination(URL, PYPIRC, {})
    assert place.words == ("--repository", "ours")
    assert (place.user, place.secret) == ("ana", SECRET)
    place = main_publish.destination(URL, PYPIRC, {"TWINE_USERNAME": "eva", "TWINE_PASSWORD": "x"})
    assert (place.user, place.secret) == ("eva", "x")  # as twine itself does


def test_a_name_of_pypirc_will_do() -> None:
    place = main_publish.destination("other", PYPIRC, {})
    assert (place.url, place.words) == (
        "https://other.example.org/legacy/",
        ("--repository", "other"),
    )


@pytest.mark.parametrize(
    "to",
    [
        "nowhere", "wheels.example.org", "ftp://a/b", "file:///x", "", "https://", "http://[x",
        "https://h:port/",
    ],
)  # fmt: skip
def test_what_is_no_server_is_refused(to: str) -> None:
    with raises("publish-url-invalid") as caught:
        main_publish.destination(to, PYPIRC, {})
    assert caught.value.evidence == "servers in ~/.pypirc: ours, other"


@pytest.mark.parametrize(
    "to",
    [
        f"https://ana:{'s3cret'}@h/", "https://ana@h/", "ftp://ana:s3cret@h/", "ana:s3cret@h",
        "https://ana:s3cret/more@h/", "http://ana:s3cret@[h", "https://h/?token=s3cret",
        "https://h/#s3cret", "ftp://h/?token=s3cret",
    ],
)  # fmt: skip
def test_credentials_in_the_address_are_refused_and_not_shown(to: str) -> None:
    with raises("publish-url-with-password") as caught:
        main_publish.destination(to, "", {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        (f"https://ana:{'s3cret'}@h/", "contains a name or a password"),
        ("https://ana:s3cret@[h/", "contains a name or a password"),
        ("https://[h/", "is not the address of a package server"),
        ("wheels.example.org", "is not the address of a package server"),
    ],
)
def test_an_address_in_pypirc_is_as_good_as_any_other(repository: str, words: str) -> None:
    text = f"[distutils]\nindex-servers = ours@home\n[ours@home]\nrepository = {repository}\n"
    with pytest.raises(Problem, match=f"ours@home in ~/.pypirc {words}") as caught:
        main_publish.destination("ours@home", text, {})
    assert "s3cret" not in str(caught.value)


def test_a_broken_pypirc_is_a_problem_that_quotes_none_of_it() -> None:
    with raises("pypirc-unreadable") as caught:
        main_publish.destination(URL, f"password = {SECRET}\n", {})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_place_does_not_show_its_password() -> None:
    assert SECRET not in repr(main_publish.destination(URL, PYPIRC, {}))


# ---- What reaches twine -----------------------------------------------------------------------


def test_twine_gets_credentials_and_no_other_address() -> None:
    env = {
        "HOME": "/h",
        "PATH": "/bin",
        "TWINE_USERNAME": "ana",
        "TWINE_PASSWORD": SECRET,
        "TWINE_CERT": "/ca.pem",
        "TWINE_REPOSITORY_URL": "https://elsewhere/",
        "TWINE_REPOSITORY": "elsewhere",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/bus",
        "https_proxy": "http://proxy",
        "CXX": "g++",
    }
    given = child_environment.twine_environment(env)
    dropped = {"TWINE_REPOSITORY_URL", "TWINE_REPOSITORY", "CXX"}
    assert env.items() - given.items() == {(name, env[name]) for name in dropped}


# ---- The upload -------------------------------------------------------------------------------


def test_two_wheels_of_one_name_go_nowhere(tmp_path: Path) -> None:
    tiny.all_cards(tmp_path / "dist")
    with raises("publish-same-name") as caught:
        main_publish.main(context(tmp_path, "--to", URL))
    assert "nox -s publish -- --target cpu --to URL" in caught.value.remedy


class Server:
    """A server that has some files, seen through twine's answers and its pages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = URL
        self.has: dict[str, str] = {}  # name -> "same" or "other"
        self.pages = True
        self.fails: dict[str, str] = {}  # name -> what twine says
        self.uploads: list[str] = []
        self.commands: list[tuple[tuple[str, ...], dict[str, str]]] = []
        monkeypatch.setattr(server_listing, "has", self.state)
        monkeypatch.setattr(programs, "capture", self.twine)
        monkeypatch.setattr(build_tools, "own", lambda _: Path("/venv"))

    def state(self, url: str, project: str, file: Path, *_: Any) -> str:
        assert (url, project) == (self.url, "llama-cpp-python")
        return self.has.get(file.name, "unseen") if self.pages else "unseen"

    def twine(self, command: list[str], *, env: dict[str, str], timeout: float) -> Finished:
        assert timeout > 0
        self.commands.append((tuple(command), env))
        name = Path(command[-1]).name
        if name in self.fails:
            return Finished(tuple(command), 1, self.fails[name], 1.0)
        if name in self.has:
            return Finished(tuple(command), 1, twine_says("400 Bad Request"), 1.0)
        self.uploads.append(name)
        self.has[name] = "same"
        return Finished(tuple(command), 0, "Uploading", 1.0)


TO = Destination(URL, (), "ana", SECRET)


def twine_says(status: str, reason: str = "no") -> str:
    pad = " " * 200
    return (
        f"Uploading distributions to {URL}\n\x1b[33mWARNING \x1b[0m Error during upload.{pad}\n"
        f"\x1b[31mERROR   \x1b[0m HTTPError: {status} from {URL}{pad}\n         {reason}{pad}\n"
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two releases whose wheels have names of their own."""
    old = tiny.release(tmp_path / "dist", "cpu", None)
    new = tiny.release(tmp_path / "dist", "cpu+v0.3.36", None, version="0.3.36")
    return old.file, new.file


def test_what_is_missing_is_uploaded_by_twine(
    tmp_path: Path, server: Server, two: tuple[str, str], said: list[str]
) -> None:
    main_publish.main(context(tmp_path, "--to", URL, TWINE_USERNAME="ana", TWINE_PASSWORD=SECRET))
    assert server.uploads == list(two)
    words, env = server.commands[0]
    wheel = str(tmp_path / "dist" / "cpu" / two[0])
    assert words[1:] == (
        *("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", URL),
        wheel,
    )
    assert env["TWINE_PASSWORD"] == SECRET
    assert SECRET not in "\n".join([*said, *words])
    assert said[-1] == f"publish: 2 uploaded, 0 already there, {URL}"


def test_a_second_run_uploads_only_what_is_missing(
    tmp_path: Path, server: Server, two: tuple[str, str], said: list[str]
) -> None:
    broken = "Traceback\nrequests.exceptions.ConnectionError: ('Connection aborted.', ...)"
    server.fails[two[1]] = broken
    with raises("upload-failed") as caught:
        main_publish.main(context(tmp_path, "--to", URL))
    assert "uploads only what is missing" in caught.value.remedy
    assert server.uploads == [two[0]]
    server.fails.clear()
    main_publish.main(context(tmp_path, "--to", URL))
    assert server.uploads == list(two)
    assert said[-1] == f"publish: 1 uploaded, 1 already there, {URL}"


def test_an_upload_needs_no_target_and_so_no_probe(
    tmp_path: Path, server: Server, two: tuple[str, str], said: list[str]
) -> None:
    main_publish.main(context(tmp_path, "--to", URL))
    assert len(server.uploads) == 2
    assert not (tmp_path / "build").exists()
    assert not [line for line in said if "rtx50" in line]


def test_another_file_of_the_name_stops_it_before_anything_is_uploaded(
    tmp_path: Path, server: Server, two: tuple[str, str]
) -> None:
    server.has[two[1]] = "other"
    with raises("publish-file-conflict") as caught:
        main_publish.main(context(tmp_path, "--to", URL))
    assert two[1] in caught.value.evidence
    assert "an index of its own" in caught.value.remedy
    assert server.commands == []


@pytest.mark.parametrize("output", ["409", "ConnectionError: the answer was lost"])
def test_a_file_that_is_there_after_all_counts_as_done(
    tmp_path: Path,
    server: Server,
    two: tuple[str, str],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    output: str,
) -> None:
    # Another run was quicker, between the look and the upload; or twine never heard of its success.
    answers = iter(["unseen", "unseen", "same", "same"])
    monkeypatch.setattr(server_listing, "has", lambda *_: next(answers))
    server.fails[two[0]] = twine_says("409 Conflict") if output == "409" else output
    main_publish.main(context(tmp_path, "--to", URL))
    assert server.uploads == [two[1]]
    assert len(server.commands) == 2


def test_a_refused_file_that_no_page_shows_is_a_problem(
    tmp_path: Path, server: Server, two: tuple[str, str]
) -> None:
    server.pages = False
    server.has[two[0]] = "same"
    with raises("upload-failed"):
        main_publish.main(context(tmp_path, "--to", URL))


def test_an_upload_that_no_page_shows_yet_is_said_to_be_unchecked(
    tmp_path: Path, server: Server, two: tuple[str, str], said: list[str]
) -> None:
    server.pages = False
    main_publish.main(context(tmp_path, "--to", URL))
    assert sum("nothing was compared" in line for line in said) == 2


def test_an_upload_that_arrived_as_another_file_is_a_problem(
    tmp_path: Path, two: tuple[str, str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["unseen", "unseen", "other"])
    monkeypatch.setattr(server_listing, "has", lambda *_: next(answers))
    with raises("publish-file-conflict"):
        main_publish.main(context(tmp_path, "--to", URL))


@pytest.mark.parametrize(
    ("output", "what", "remedy"),
    [
        (
            "ERROR    NonInteractive: Credential not found for username.",
            "asks for a name and a password",
            "TWINE_USERNAME and TWINE_PASSWORD",
        ),
        (twine_says("401 Unauthorized"), "does not let you upload", "check TWINE_USERNAME"),
        (twine_says("403 Forbidden"), "does not let you upload", "~/.pypirc"),
        (twine_says("404 Not Found"), "no index at this address", "docs/package-index.md"),
        (twine_says("405 Method Not Allowed"), "no index at this address", "docs/package-index.md"),
        (twine_says("413 Request Entity Too Large"), "too large", "client_max_body_size"),
        (twine_says("400 Bad Request"), "refuses a.whl", "another index for this GPU"),
        (twine_says("409 Conflict"), "refuses a.whl", "another index for this GPU"),
        (twine_says("503 Service Unavailable"), "The server failed", "the server's log"),
        (
            "requests.exceptions.SSLError: CERTIFICATE_VERIFY_FAILED",
            "certificate is not trusted",
            "TWINE_CERT",
        ),
        ("requests.exceptions.ConnectionError: aborted", "was lost", "only what is missing"),
        ("urllib3.exceptions.ProtocolError: aborted", "was lost", "only what is missing"),
        ("requests.exceptions.ReadTimeout: slow", "was lost", "only what is missing"),
        ("InvalidDistribution: no metadata", "twine failed", "only what is missing"),
        ("", "twine failed", "only what is missing"),
    ],
)
def test_what_a_failed_upload_stands_for(output: str, what: str, remedy: str) -> None:
    problem = main_publish.upload_problem(
        main_publish.readable_output(output, Destination(URL, ())), "a.whl", URL
    )
    assert what in problem.what
    assert remedy in problem.remedy


def test_the_evidence_is_what_the_server_said_without_paint_and_password() -> None:
    text = main_publish.readable_output(
        twine_says("409 Conflict", f"exists; you sent {SECRET}"), TO
    )
    problem = main_publish.upload_problem(text, "a.whl", URL)
    assert problem.evidence == (
        f"ERROR    HTTPError: 409 Conflict from {URL}\n         exists; you sent ***"
    )


def test_an_upload_that_takes_too_long_broke_off(
    tmp_path: Path, server: Server, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Finished((), 124, "Uploading", 3600.0)
    monkeypatch.setattr(programs, "capture", lambda *_, **__: late)
    with raises("upload-failed") as caught:
        main_publish.main(context(tmp_path, "--to", URL))
    assert "not done after 3600 s" in caught.value.evidence


def test_an_address_with_a_token_is_not_printed(
    tmp_path: Path, server: Server, two: tuple[str, str], said: list[str]
) -> None:
    url = f"{URL}?token=t0psecret"
    (tmp_path / ".pypirc").write_text(
        f"[distutils]\nindex-servers = ours\n[ours]\nrepository = {url}\n", encoding="utf-8"
    )
    server.url = url
    ctx = context(tmp_path, "--to", "ours")
    main_publish.main(ctx)
    assert "t0psecret" not in "\n".join(said)
    assert f"to {URL}?***" in "\n".join(said)
    server.fails, server.has = {two[0]: twine_says("404 Not Found").replace(URL, url)}, {}
    with raises("upload-failed") as caught:
        main_publish.main(ctx)
    assert "t0psecret" not in str(caught.value)
    server.fails = {two[0]: "NonInteractive: Credential not found"}
    with raises("upload-failed") as caught:
        main_publish.main(ctx)
    assert "t0psecret" not in str(caught.value)
    server.has[two[0]] = "other"
    with raises("publish-file-conflict") as caught:
        main_publish.main(ctx)
    assert "t0psecret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", None], ids=["not-utf-8", "a-folder"])
def test_a_pypirc_that_is_no_text_is_a_problem_or_none(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / ".pypirc"
    if data is None:
        path.mkdir()
        assert main_publish._pypirc({"HOME": str(tmp_path)}) == ""
        return
    path.write_bytes(data)
    with raises("pypirc-unreadable"):
        main_publish._pypirc({"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "name",
    ["simple/llama-cpp-python/index.html", "contents.json", "index.html", "more.html", "cpu/x.txt"],
)
@pytest.mark.parametrize("words", [(), ("--to", URL)])
def test_pages_that_were_changed_are_not_published(
    name: str, words: tuple[str, ...], tmp_path: Path, server: Server, said: list[str]
) -> None:
    dist = tmp_path / "dist"
    tiny.release(dist, "cpu", None)
    tiny.indexed(dist)
    main_publish.main(context(tmp_path, *words))
    said.clear()
    (dist / name).write_text("pip install something-else", encoding="utf-8")
    server.commands.clear()
    with raises("publish-dist-changed") as caught:
        main_publish.main(context(tmp_path, *words))
    assert name in caught.value.evidence
    assert "nox -s release -- --target cpu --fresh" in caught.value.remedy
    assert (said, server.commands) == ([], [])


def test_a_changed_release_is_written_again_by_the_options_that_it_is_of(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    tiny.release(dist, "cpu", None)
    for name, words in {
        "hopper+py3.12": "3.12",
        "ada+py3.12": "3.12",
        "ada+py3.13": "3.13",
    }.items():
        chosen = ("--target", name.split("+")[0], "--python", words)
        tiny.release(dist, name, "13.1", ("90-real",), arguments=chosen)

    def remedy(*names: str) -> str:
        for path in dist.glob("*/WHEEL.md"):
            text = "changed" if path.parent.name in names else f"WHEEL.md of {path.parent.name}\n"
            path.write_text(text, encoding="utf-8")
        with raises("publish-dist-changed") as caught:
            main_publish.main(context(tmp_path))
        return caught.value.remedy.partition("again: ")[2]

    begin = "nox -s release -- --target"
    assert remedy("hopper+py3.12") == f"{begin} hopper --python 3.12 --fresh"
    both = programs.typed(["ada,hopper"])
    assert remedy("hopper+py3.12", "ada+py3.12") == f"{begin} {both} --python 3.12 --fresh"
    assert remedy("ada+py3.13", "cpu") == (
        f"delete {dist / 'cpu'}, then {begin} ada --python 3.13 --fresh, then {begin} cpu --fresh"
    )
    with raises("dist-changed") as caught:
        dist_folder.refuse_changed(dist / "ada+py3.13", dist_contents.changed(dist))
    assert f"again: {begin} ada --python 3.13 --fresh; or delete" in caught.value.remedy
    (dist / "ada+py3.13" / "release.json").write_text("{}", encoding="utf-8")
    assert remedy("ada+py3.13") == f"delete {dist / 'ada+py3.13'}"


def test_a_server_that_is_gone_after_the_upload_does_not_hide_what_twine_says(
    tmp_path: Path, server: Server, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> Iterator[str]:
        yield from ("unseen", "unseen")
        raise Problem("Nobody answers.", id="server-unreachable", remedy="start it")

    said = answers()
    monkeypatch.setattr(server_listing, "has", lambda *_: next(said))
    server.fails[two[0]] = "requests.exceptions.ConnectionError: aborted"
    with raises("upload-failed"):
        main_publish.main(context(tmp_path, "--to", URL))
