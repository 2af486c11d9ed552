"""The session ``publish``: prints the commands that publish releases, or uploads with twine."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sessions.fetch import build_tools
from sessions.release import dist_contents, dist_folder, server_listing
from sessions.release.documents import wheel_card
from sessions.release.index import builder
from sessions.release.masking import masked
from sessions.release.record_types import Release
from sessions.shared import child_environment, console, programs, venvs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

_CONFLICT = "publish-file-conflict"
_HOURS = 3600.0  # seconds that one upload may take
_AGAIN = "run the same command again: it uploads only what is missing"


@dataclass(frozen=True)
class Destination:
    """A server to upload to: its address, and twine's arguments for it."""

    url: str
    words: tuple[str, ...]
    user: str = ""
    secret: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Its address without secrets."""
        return masked(self.url, self.user, self.secret)


def main(ctx: Context) -> None:
    """Print the commands that publish the releases in ``dist/``; with ``--to``, upload them."""
    _refuse_changed(ctx.root / "dist")
    found = choose(builder.releases(ctx.root / "dist"), named_targets(ctx))
    if ctx.options.to is None:
        for release in found:
            console.say("\n".join([*commands(release), ""]))
        console.say("\n".join(hosting()))
        return
    to = destination(ctx.options.to, _pypirc(ctx.env), ctx.env)
    if ctx.options.dry_run:
        _refuse_same_names(found)
        console.say("\n".join(plan(found, to)))
        return
    upload(ctx, found, to)


def _refuse_changed(dist: Path) -> None:
    """Raise Problem if a file in dist/ changed after ``release`` wrote it."""
    if lines := dist_contents.changed(dist):
        more = [f"and {len(lines) - 8} more"] if len(lines) > 8 else []
        raise Problem(
            "dist/ was changed after release wrote it, so nothing is published.",
            id="publish-dist-changed",
            code=CHECK_FAILED,
            evidence="\n".join([*lines[:8], *more]),
            remedy="find out what changed it; to write it again: " + dist_folder.again(dist, lines),
        )


def named_targets(ctx: Context) -> tuple[BuildSpec, ...]:
    """The targets that the options name; none means all that were released."""
    o = ctx.options
    named = (o.target, o.targets, o.version, o.cuda, o.arch, o.python, o.toolkit, o.glibc)
    return ctx.specs if any((*named, o.source, o.cmake)) else ()


def choose(found: Sequence[Release], specs: Sequence[BuildSpec]) -> tuple[Release, ...]:
    """The releases of these targets, or all. Raises Problem if one of them is missing."""
    have = {release.target: release for release in found}
    for spec in specs:
        if spec.target not in have:
            raise Problem(
                f"{spec.target} has not been released.",
                id="publish-target-not-released",
                code=CHECK_FAILED,
                evidence=f"released, in dist/: {', '.join(have) or 'nothing'}",
                remedy=command("release", spec),
            )
    if not have:
        raise Problem(
            "Nothing has been released: dist/ contains no wheel.",
            id="publish-nothing-released",
            code=CHECK_FAILED,
            remedy="nox -s release -- --target NAME",
        )
    return tuple(have[target] for target in [spec.target for spec in specs] or have)


def commands(release: Release) -> list[str]:
    """The lines that show how to publish one release."""
    name = builder.label(release.cuda, release.archs)
    folder = f"dist/{release.target}"
    wheel = f"{folder}/{release.file}"
    tag = f"v{release.version}-{release.target}"
    wheels = [f"{folder}/{each.file}" for each in release.wheels]
    documents = [f"{folder}/{name}" for name in release.files]
    assets = [*wheels, *documents, f"{folder}/release.json"]
    state = "" if release.tested else ", UNTESTED on such a GPU"
    create = ["gh", "release", "create", tag, "--title", f"{builder.PROJECT} {tag}"]
    create += ["--target", release.commit]
    notes = [name for name in wheel_card.LANGUAGES.values() if name in release.files]
    create += ["--notes-file", f"{folder}/{notes[0]}"] if notes else ["--notes", wheel + state]
    return [
        f"{release.target}: {wheel}, {release.size / 1e6:.1f} MB{state}",
        f"sha256 {release.sha256}",
        "",
        f"# to a package server, into an index that is for {name} only: one of these",
        builder.command("publish", release, "--to", "URL"),
        programs.typed(["twine", "upload", "--repository-url", "URL", *wheels]),
        programs.typed(["uv", "publish", "--publish-url", "URL", *wheels]),
        "# to GitHub, as a release of its own (another GPU's wheel may have the same name)",
        programs.typed(create),
        programs.typed(["gh", "release", "upload", tag, *assets]),
    ]


def hosting() -> list[str]:
    """The lines that show how to publish the static index of all releases."""
    return [
        "# to any web server: the whole static index, as docs/package-index.md says",
        "rsync -a dist/ HOST:/srv/www/wheels/",
        "# of several dist/, one index: nox -s index -- DIST DIST, then site/ in place of dist/",
    ]


def destination(to: str, pypirc: str, env: Mapping[str, str]) -> Destination:
    """The server for ``--to``, which is an address or the name of a server in ``~/.pypirc``."""
    servers = _servers(pypirc)
    if to in servers:
        name: str | None = to
    elif _has_login(to) or "?" in to or "#" in to:  # ?token=… may be a secret
        raise Problem(
            "The address after --to contains a name, a password or a query. Every user of this "
            "machine could see it in the list of processes.",
            id="publish-url-with-password",
            code=USAGE,
            remedy="leave it out, and set TWINE_USERNAME and TWINE_PASSWORD; an address with a "
            "query can be the repository of a server in ~/.pypirc: --to NAME",
        )
    elif _is_address(to):
        same = (n for n, s in servers.items() if s["repository"].rstrip("/") == to.rstrip("/"))
        name = next(same, None)
    else:
        raise Problem(
            f"{masked(to)!r} is not the address of a package server.",
            id="publish-url-invalid",
            code=USAGE,
            evidence=f"servers in ~/.pypirc: {', '.join(servers) or 'none'}",
            remedy="give its address for uploads: --to https://HOST/PATH/",
        )
    server = servers[name] if name else {"repository": to}
    if _has_login(server["repository"]):  # it is printed
        raise Problem(
            f"The repository of {name} in ~/.pypirc contains a name or a password.",
            id="pypirc-url-with-password",
            code=USAGE,
            remedy="put them into lines of their own there: username = …, password = …",
        )
    if not _is_address(server["repository"]):
        raise Problem(
            f"The repository of {name} in ~/.pypirc is not the address of a package server.",
            id="pypirc-url-invalid",
            code=USAGE,
            remedy="write its address for uploads there: repository = https://HOST/PATH/",
        )
    user = env.get("TWINE_USERNAME") or server.get("username", "")
    secret = env.get("TWINE_PASSWORD") or server.get("password", "")
    if name is None:
        return Destination(to, ("--repository-url", to), user, secret)
    return Destination(server["repository"], ("--repository", name), user, secret)


def _is_address(text: str) -> bool:
    """Whether a text is an http or https URL."""
    try:
        found = urlsplit(text)
        return found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:  # for example "http://[x", or a port that is not a number
        return False


def _has_login(text: str) -> bool:
    """Whether a text contains a user name, and so perhaps a password."""
    return "@" in (urlsplit(text).netloc if _is_address(text) else text)


def _pypirc(env: Mapping[str, str]) -> str:
    home = env.get("HOME") or env.get("USERPROFILE")
    path = Path(home or "/") / ".pypirc"
    try:
        return path.read_text(encoding="utf-8") if home and path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_pypirc(error) from None


def _servers(pypirc: str) -> dict[str, dict[str, str]]:
    """The servers of a ``.pypirc`` that have an address."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(pypirc)
    except configparser.Error as error:
        raise _bad_pypirc(error) from None
    names = parser.get("distutils", "index-servers", fallback="").split()
    return {n: dict(parser[n]) for n in names if parser.has_option(n, "repository")}


def plan(found: Sequence[Release], to: Destination) -> list[str]:
    """The lines of a dry run. The server is not asked, so it is unknown which files it has."""
    return [
        f"would ask {to.shown} for each of these files, and upload those that it does not have:",
        *(
            f"  dist/{r.target}/{w.file}, {w.size / 1e6:.1f} MB, sha256 {w.sha256}"
            for r in found
            for w in r.wheels
        ),
        "--dry-run: no connection was made and nothing was uploaded",
    ]


def _bad_pypirc(error: Exception) -> Problem:
    # The parser's message may quote a line of the file, and a line may be a password.
    return Problem(
        "~/.pypirc cannot be read.",
        id="pypirc-unreadable",
        code=USAGE,
        evidence=type(error).__name__,
        remedy="correct it as packaging.python.org/specifications/pypirc says",
    )


def upload(ctx: Context, found: Sequence[Release], to: Destination) -> None:
    """Upload the files that the server lacks. Raises Problem if it has another file of a name."""
    _refuse_same_names(found)
    wheels = {w.file: ctx.root / "dist" / r.target / w.file for r in found for w in r.wheels}
    missing = []
    for name, wheel in wheels.items():
        if _is_on_server(wheel, to, ctx.env):
            console.say(f"{name} is already on the server: the same file")
        else:
            missing.append(name)
    twine = str(venvs.program(build_tools.own(ctx), "twine")) if missing else ""
    for name in missing:
        console.say(f"Uploading {name} ({wheels[name].stat().st_size / 1e6:.1f} MB) to {to.shown}")
        _upload(ctx, twine, wheels[name], to)
    present = len(wheels) - len(missing)
    console.done(f"publish: {len(missing)} uploaded, {present} already there, {to.shown}")


def _refuse_same_names(found: Sequence[Release]) -> None:
    by_name: dict[str, Release] = {}
    for release, wheel in ((r, w) for r in found for w in r.wheels):
        other = by_name.setdefault(wheel.file, release)
        if wheel.sha256 not in {w.sha256 for w in other.wheels}:
            raise Problem(
                f"The wheels of {other.target} and {release.target} have the same file name, "
                "so one index cannot contain both.",
                id="publish-same-name",
                code=CHECK_FAILED,
                evidence=wheel.file,
                remedy="give each an index of its own: "
                + builder.command("publish", other, "--to", "URL"),
            )


def _is_on_server(wheel: Path, to: Destination, env: Mapping[str, str]) -> bool:
    """Whether the server has exactly this file. Raises Problem if it has another of its name."""
    state = server_listing.has(to.url, builder.PROJECT, wheel, env, to.user, to.secret)
    if state == "other":
        raise Problem(
            "The server has another file with this name, and a published file is not replaced.",
            id=_CONFLICT,
            code=CHECK_FAILED,
            evidence=f"{wheel.name} at {to.shown}",
            remedy="wheels for two GPUs have the same file name: upload this one to an index "
            "of its own; if both are for the same GPU, release another version",
        )
    return state == "same"


def _upload(ctx: Context, twine: str, wheel: Path, to: Destination) -> None:
    command = [twine, "upload", "--non-interactive", "--disable-progress-bar", *to.words]
    # With this width no line is broken: half of a password would not be masked.
    env = {**child_environment.twine_environment(ctx.env), "COLUMNS": "20000"}
    done = programs.capture([*command, str(wheel)], env=env, timeout=_HOURS)
    # Also after a failure: another run may have uploaded the file, or only the answer was lost.
    if _is_on_server_now(wheel, to, ctx.env):
        return
    if done.returncode == 0:
        console.warn("uploaded, but no page of the server lists it yet: nothing was compared")
        return
    output = readable_output(done.output, to)
    if done.returncode == 124:
        output += f"\nTimeout: not done after {_HOURS:.0f} s"
    raise upload_problem(output, wheel.name, to.shown)


def _is_on_server_now(wheel: Path, to: Destination, env: Mapping[str, str]) -> bool:
    """The same after an upload; False if the server does not answer, as twine reports why."""
    try:
        return _is_on_server(wheel, to, env)
    except Problem as found:
        if found.id == _CONFLICT:
            raise
        return False


def readable_output(output: str, to: Destination) -> str:
    """Twine's output without colours, padding and secrets."""
    text = masked(re.sub(r"\x1b\[[0-9;]*m", "", output), to.user, to.secret)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def upload_problem(output: str, file: str, url: str) -> Problem:
    """The error of a failed upload, found from twine's output."""
    match = re.search(r"HTTPError: (\d{3}) ", output)
    status = int(match[1]) if match else 0
    error = output.rfind("ERROR")
    evidence = output[error:] if error >= 0 else venvs.tail(output, 1)
    what, remedy = (
        f"{file} could not be uploaded: twine failed.",
        "correct the error that twine shows; then " + _AGAIN,
    )
    if "NonInteractive" in output or "could not determine credentials" in output:
        what = "The server asks for a name and a password, and none was found."
        remedy = (
            "set TWINE_USERNAME and TWINE_PASSWORD, or keep them in the keyring "
            f"(keyring set {url} NAME) or in ~/.pypirc"
        )
    elif status in (401, 403):
        what = f"The server does not let you upload {file}: wrong name, password or rights."
        remedy = "check TWINE_USERNAME and TWINE_PASSWORD, the keyring or ~/.pypirc; then " + _AGAIN
    elif status in (404, 405):
        what = "There is no index at this address that accepts uploads."
        remedy = "give the address for uploads, or make the index first (docs/package-index.md)"
    elif status == 413:
        what = f"{file} is too large for the server."
        remedy = "raise its limit (nginx: client_max_body_size); then " + _AGAIN
    elif status in (400, 409):
        what = (
            f"The server refuses {file}: it may already have a hidden or deleted file of that name."
        )
        remedy = "look on the server; if it has such a file, use another index for this GPU"
    elif status >= 500:
        what = f"The server failed while receiving {file}."
        remedy = "look into the server's log; then " + _AGAIN
    elif "CERTIFICATE_VERIFY_FAILED" in output or "SSLError" in output:
        what = "The server's certificate is not trusted."
        remedy = "set TWINE_CERT to the certificate of its authority"
    elif re.search(r"(Connection|Protocol|ChunkedEncoding)\w*Error|Timeout", output):
        what = f"The connection was lost during the upload of {file}."
        remedy = _AGAIN
    return Problem(what, id="upload-failed", evidence=evidence, remedy=remedy)
