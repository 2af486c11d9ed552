"""``publish``: the printed commands, the server, the uploads, and the errors of an upload."""

from __future__ import annotations

import dataclasses
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from sessions.command_line import option_list
from sessions.fetch import build_tools
from sessions.release import dist_contents, dist_folder, main_publish, server_listing
from sessions.release.index import builder
from sessions.release.main_publish import Destination
from sessions.release.record_types import PythonWheel
from sessions.shared import child_environment, console, programs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import Problem
from sessions.shared.programs import Finished
from tests import fakes, tiny
from tests.problems import raises

URL = "https://wheels.example.org/cu131-sm90/"
OTHER = "https://other.example.org/legacy/"
SECRET = "do not show this"
WHEEL = f"llama_cpp_python-0.3.16-{tiny.TAG}.whl"
PYPIRC = f"""
[distutils]
index-servers = ours other nowhere

[ours]
repository = https://wheels.example.org/cu131-sm90
username = ana
password = {SECRET}

[other]
repository: {OTHER}

[nowhere]
username = ana
"""


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for name in ("say", "warn", "done"):
        monkeypatch.setattr(console, name, lines.append)
    return lines


def context(root: Path, *words: str, **env: str) -> Context:
    ctx = fakes.context(root, options=fakes.parsed(*words))
    targets = (ctx.options.target or ctx.spec.target).split(",")
    specs = tuple(dataclasses.replace(ctx.spec, target=target) for target in targets)
    return dataclasses.replace(ctx, env={"HOME": str(root), **env}, spec=specs[0], specs=specs)


# ---- Targets -----------------------------------------------------------------------------------


def test_without_a_release_there_is_nothing_to_publish(tmp_path: Path) -> None:
    with raises("publish-nothing-released") as caught:
        main_publish.main(context(tmp_path))
    assert caught.value.remedy == "nox -s release -- --target NAME"


def specs(*targets: str) -> tuple[BuildSpec, ...]:
    return tuple(fakes.spec(target=target) for target in targets)


def test_releases_are_chosen_by_target(tmp_path: Path) -> None:
    tiny.all_cards(tmp_path / "dist")
    found = builder.releases(tmp_path / "dist")
    everything = ["cpu", "hopper", "rtx50", "rtx50-fp4"]
    assert [r.target for r in main_publish.choose(found, ())] == everything
    assert [r.target for r in main_publish.choose(found, specs("rtx50", "cpu"))] == ["rtx50", "cpu"]
    with raises("publish-target-not-released") as caught:
        main_publish.choose(found, specs("cpu", "ada"))
    assert caught.value.evidence.endswith("cpu, hopper, rtx50, rtx50-fp4")
    assert caught.value.remedy == "nox -s release -- --target ada"
    with_option = fakes.spec(base="rtx50", target="rtx50+py3.12", overrides=("--python", "3.12"))
    with raises("publish-target-not-released") as caught:
        main_publish.choose(found, [with_option])
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
def test_without_a_target_every_release_is_published(
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
def test_an_option_of_a_target_chooses_that_target(
    option: option_list.Option, tmp_path: Path
) -> None:
    value = {"cmake": "GGML_CUDA_FA_ALL_QUANTS=ON", "glibc": "host"}.get(option.name, "x")
    ctx = fakes.context(tmp_path, option.flag, value)
    assert main_publish.named_targets(dataclasses.replace(ctx, specs=(ctx.spec,))) == (ctx.spec,)


# ---- A dry run ---------------------------------------------------------------------------------


def test_a_dry_run_prints_every_upload_and_opens_no_connection(
    tmp_path: Path, output: list[str], monkeypatch: pytest.MonkeyPatch
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
    text = "\n".join(output)
    assert URL in text
    assert releases[0].sha256 in text
    assert f"dist/hopper/{releases[0].file}" in text
    assert "dist/cpu" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_invalid_options(tmp_path: Path) -> None:
    tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    with raises("publish-url-invalid"):
        main_publish.main(
            context(tmp_path, "--target", "hopper", "--to", "nowhere at all", "--dry-run")
        )
    with raises("publish-target-not-released"):
        main_publish.main(context(tmp_path, "--target", "ada", "--to", URL, "--dry-run"))


# ---- What is printed --------------------------------------------------------------------------


def test_the_commands_name_existing_files(tmp_path: Path, output: list[str]) -> None:
    dist = tmp_path / "dist"
    tiny.all_cards(dist)
    tiny.indexed(dist)
    main_publish.main(context(tmp_path))
    text = "\n".join(output)
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


def test_the_commands_of_one_release(tmp_path: Path, output: list[str]) -> None:
    release = tiny.release(tmp_path / "dist", "hopper", "13.1", ("90-real",))
    main_publish.main(context(tmp_path, "--target", "hopper"))
    wheel = f"dist/hopper/{release.file}"
    lines = "\n".join(output).splitlines()
    assert "nox -s publish -- --target hopper --to URL" in lines
    assert f"twine upload --repository-url URL {wheel}" in lines
    assert f"uv publish --publish-url URL {wheel}" in lines
    tag = "v0.3.16-hopper"
    title = programs.typed([f"llama-cpp-python {tag}"])  # with the quotes of this system's shell
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


@pytest.mark.parametrize(
    ("documents", "tested", "notes"),
    [
        (["SHA256SUMS", "WHEEL.md"], True, ["--notes-file", "dist/cpu/WHEEL.md"]),
        (["SHA256SUMS", "WHEEL.es.md"], False, ["--notes-file", "dist/cpu/WHEEL.es.md"]),
        ([], True, ["--notes", f"dist/cpu/{WHEEL}"]),
        ([], False, ["--notes", f"dist/cpu/{WHEEL}, UNTESTED on such a GPU"]),
    ],
)
def test_the_notes_are_the_wheel_card_if_there_is_one(
    documents: list[str], tested: bool, notes: list[str], tmp_path: Path
) -> None:
    release = tiny.release(tmp_path, "cpu", None, tested=tested)
    release = dataclasses.replace(release, files=dict.fromkeys(documents, "0" * 64))
    (line,) = [x for x in main_publish.commands(release) if x.startswith("gh release create")]
    assert shlex.split(line)[-2:] == notes


# ---- The server --------------------------------------------------------------------------------

EVA = {"TWINE_USERNAME": "eva", "TWINE_PASSWORD": "x"}  # which twine also prefers to ~/.pypirc


@pytest.mark.parametrize(
    ("to", "pypirc", "env", "expected"),
    [
        (URL, "", {}, Destination(URL, ("--repository-url", URL))),
        (URL, PYPIRC, {}, Destination(URL[:-1], ("--repository", "ours"), "ana", SECRET)),
        (URL, PYPIRC, EVA, Destination(URL[:-1], ("--repository", "ours"), "eva", "x")),
        ("other", PYPIRC, {}, Destination(OTHER, ("--repository", "other"))),
    ],
)
def test_the_server_and_its_credentials(
    to: str, pypirc: str, env: dict[str, str], expected: Destination
) -> None:
    found = main_publish.destination(to, pypirc, env)
    assert found == expected
    assert SECRET not in repr(found)


INVALID = "nowhere wheels.example.org ftp://a/b file:///x https:// http://[x https://h:port/"
WITH_SECRET = (
    "https://ana:s3cret@h/ https://ana@h/ ftp://ana:s3cret@h/ ana:s3cret@h "
    "https://ana:s3cret/more@h/ http://ana:s3cret@[h https://h/?token=s3cret https://h/#s3cret "
    "ftp://h/?token=s3cret"
)


@pytest.mark.parametrize(
    ("to", "id_"),
    [
        *((to, "publish-url-invalid") for to in ["", *INVALID.split()]),
        *((to, "publish-url-with-password") for to in WITH_SECRET.split()),
    ],
)
def test_an_invalid_address_is_refused(to: str, id_: str) -> None:
    with raises(id_) as caught:
        main_publish.destination(to, PYPIRC, {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.evidence == ("servers in ~/.pypirc: ours, other" if "-i" in id_ else "")


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        (f"https://ana:{'s3cret'}@h/", "contains a name or a password"),
        ("https://ana:s3cret@[h/", "contains a name or a password"),
        ("https://[h/", "is not the address of a package server"),
        ("wheels.example.org", "is not the address of a package server"),
    ],
)
def test_an_invalid_address_in_pypirc_is_refused(repository: str, words: str) -> None:
    text = f"[distutils]\nindex-servers = ours@home\n[ours@home]\nrepository = {repository}\n"
    with pytest.raises(Problem, match=f"ours@home in ~/.pypirc {words}") as caught:
        main_publish.destination("ours@home", text, {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("data", [f"password = {SECRET}\n".encode(), b"\xff\xfe", None])
def test_an_unreadable_pypirc_is_an_error_without_its_content(
    data: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / ".pypirc"
    if data is None:  # a folder counts as no file
        path.mkdir()
        assert main_publish._pypirc({"HOME": str(tmp_path)}) == ""
        return
    path.write_bytes(data)
    with raises("pypirc-unreadable") as caught:
        main_publish.destination(URL, main_publish._pypirc({"HOME": str(tmp_path)}), {})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_twine_gets_credentials_but_no_other_address() -> None:
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


class Server:
    """Two releases, and a fake server with its pages and with the answers of twine for it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, output: list[str]) -> None:
        self.root, self.output = root, output
        self.old = tiny.release(root / "dist", "cpu", None).file
        self.new = tiny.release(root / "dist", "cpu+v0.3.36", None, version="0.3.36").file
        tiny.indexed(root / "dist")
        self.url = URL
        self.has: dict[str, str] = {}  # name -> "same" or "other"
        self.pages = True
        self.fails: dict[str, str] = {}  # name -> twine's output
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
            return Finished(tuple(command), 1, twine_error("400 Bad Request"), 1.0)
        self.uploads.append(name)
        self.has[name] = "same"
        return Finished(tuple(command), 0, "Uploading", 1.0)

    def publish(self, *words: str, **env: str) -> None:
        main_publish.main(context(self.root, *(words or ("--to", URL)), **env))

    def refuses(self, id_: str, *words: str) -> Problem:
        with raises(id_) as caught:
            self.publish(*words)
        return caught.value


def twine_error(status: str, reason: str = "no") -> str:
    pad = " " * 200
    return (
        f"Uploading distributions to {URL}\n\x1b[33mWARNING \x1b[0m Error during upload.{pad}\n"
        f"\x1b[31mERROR   \x1b[0m HTTPError: {status} from {URL}{pad}\n         {reason}{pad}\n"
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: list[str]) -> Server:
    return Server(tmp_path, monkeypatch, output)


def test_two_wheels_with_one_name_are_refused(server: Server) -> None:
    tiny.all_cards(server.root / "dist")
    problem = server.refuses("publish-same-name")
    assert "nox -s publish -- --target cpu --to URL" in problem.remedy
    assert server.commands == []


def test_missing_files_are_uploaded_by_twine(server: Server) -> None:
    server.publish("--to", URL, TWINE_USERNAME="ana", TWINE_PASSWORD=SECRET)
    assert server.uploads == [server.old, server.new]
    words, env = server.commands[0]
    wheel = str(server.root / "dist" / "cpu" / server.old)
    assert words[1:] == (
        *("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", URL),
        wheel,
    )
    assert env["TWINE_PASSWORD"] == SECRET
    assert SECRET not in "\n".join([*server.output, *words])
    assert server.output[-1] == f"publish: 2 uploaded, 0 already there, {URL}"
    # No target was needed, and so no probe.
    assert not (server.root / "build").exists()
    assert not [line for line in server.output if "rtx50" in line]


def test_a_second_run_uploads_only_what_is_missing(server: Server) -> None:
    broken = "Traceback\nrequests.exceptions.ConnectionError: ('Connection aborted.', ...)"
    server.fails[server.new] = broken
    assert "uploads only what is missing" in server.refuses("upload-failed").remedy
    assert server.uploads == [server.old]
    server.fails.clear()
    server.publish()
    assert server.uploads == [server.old, server.new]
    assert server.output[-1] == f"publish: 1 uploaded, 1 already there, {URL}"


def test_another_file_with_the_name_stops_all_uploads(server: Server) -> None:
    server.has[server.new] = "other"
    problem = server.refuses("publish-file-conflict")
    assert server.new in problem.evidence
    assert "an index of its own" in problem.remedy
    assert server.commands == []


UNSEEN = ["unseen", "unseen"]  # the answers for two wheels before the uploads


@pytest.mark.parametrize(
    ("answers", "twine", "id_"),
    [
        # Another run uploaded the file, or only the answer to twine was lost.
        ([*UNSEEN, "same", "same"], twine_error("409 Conflict"), None),
        ([*UNSEEN, "same", "same"], "ConnectionError: the answer was lost", None),
        ([*UNSEEN, "unseen"], twine_error("409 Conflict"), "upload-failed"),
        ([*UNSEEN, "other"], None, "publish-file-conflict"),
        # The server stopped after the upload; twine's error is shown.
        (UNSEEN, "requests.exceptions.ConnectionError: aborted", "upload-failed"),
    ],
)
def test_the_server_is_asked_again_after_an_upload(
    answers: list[str],
    twine: str | None,
    id_: str | None,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = iter(answers)

    def has(*_: object) -> str:
        for state in states:
            return state
        raise Problem("No server answers.", id="server-unreachable", remedy="start it")

    monkeypatch.setattr(server_listing, "has", has)
    if twine:
        server.fails[server.old] = twine
    if id_:
        server.refuses(id_)
    else:
        server.publish()
        assert server.uploads == [server.new]
        assert len(server.commands) == 2


def test_an_upload_that_no_page_lists_is_a_warning(server: Server) -> None:
    server.pages = False
    server.publish()
    assert sum("nothing was compared" in line for line in server.output) == 2


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        (
            "ERROR    NonInteractive: Credential not found for username.",
            "asks for a name and a password",
            "TWINE_USERNAME and TWINE_PASSWORD",
        ),
        (twine_error("401 Unauthorized"), "does not let you upload", "check TWINE_USERNAME"),
        (twine_error("403 Forbidden"), "does not let you upload", "~/.pypirc"),
        (twine_error("404 Not Found"), "no index at this address", "docs/package-index.md"),
        (
            twine_error("405 Method Not Allowed"),
            "no index at this address",
            "docs/package-index.md",
        ),
        (twine_error("413 Request Entity Too Large"), "too large", "client_max_body_size"),
        (twine_error("400 Bad Request"), "refuses a.whl", "another index for this GPU"),
        (twine_error("409 Conflict"), "refuses a.whl", "another index for this GPU"),
        (twine_error("503 Service Unavailable"), "The server failed", "the server's log"),
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
def test_each_failure_of_an_upload_has_its_own_error(text: str, what: str, remedy: str) -> None:
    text = main_publish.readable_output(text, Destination(URL, ()))
    problem = main_publish.upload_problem(text, "a.whl", URL)
    assert what in problem.what
    assert remedy in problem.remedy


def test_the_evidence_has_no_colours_and_no_password() -> None:
    error = twine_error("409 Conflict", f"exists; you sent {SECRET}")
    text = main_publish.readable_output(error, Destination(URL, (), "ana", SECRET))
    problem = main_publish.upload_problem(text, "a.whl", URL)
    assert problem.evidence == (
        f"ERROR    HTTPError: 409 Conflict from {URL}\n         exists; you sent ***"
    )


def test_an_upload_that_takes_too_long_fails(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Finished((), 124, "Uploading", 3600.0)
    monkeypatch.setattr(programs, "capture", lambda *_, **__: late)
    assert "not done after 3600 s" in server.refuses("upload-failed").evidence


def test_an_address_with_a_token_is_not_printed(server: Server) -> None:
    url = f"{URL}?token=t0psecret"
    (server.root / ".pypirc").write_text(
        f"[distutils]\nindex-servers = ours\n[ours]\nrepository = {url}\n", encoding="utf-8"
    )
    server.url = url
    server.publish("--to", "ours")
    assert f"to {URL}?***" in "\n".join(server.output)
    shown = server.output
    for error in (twine_error("404").replace(URL, url), "NonInteractive: Credential not found"):
        server.fails, server.has = {server.old: error}, {}
        shown.append(str(server.refuses("upload-failed", "--to", "ours")))
    server.has[server.old] = "other"
    shown.append(str(server.refuses("publish-file-conflict", "--to", "ours")))
    assert "t0psecret" not in "\n".join(shown)


@pytest.mark.parametrize(
    "name",
    ["simple/llama-cpp-python/index.html", "contents.json", "index.html", "more.html", "cpu/x.txt"],
)
@pytest.mark.parametrize("words", [("--target", "cpu"), ("--to", URL)])
def test_a_changed_dist_is_not_published(name: str, words: tuple[str, ...], server: Server) -> None:
    (server.root / "dist" / name).write_text("pip install something-else", encoding="utf-8")
    problem = server.refuses("publish-dist-changed", *words)
    assert name in problem.evidence
    assert re.search(r"nox -s release -- --target cpu(,\S+)? --fresh", problem.remedy)
    assert (server.output, server.commands) == ([], [])


def test_the_remedy_writes_changed_releases_with_their_own_options(tmp_path: Path) -> None:
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
