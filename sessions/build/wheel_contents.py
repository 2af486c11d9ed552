"""What a built wheel must contain, and nothing else."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sessions.build import import_hooks
from sessions.build.model import BuildEnv
from sessions.fetch import build_tools
from sessions.probe import ms_runtime
from sessions.shared import programs, venvs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, REPORT, Problem
from sessions.shared.remedies import command as command_of

LIBRARIES = ("ggml", "ggml-base", "ggml-cpu-x64", "llama", "mtmd")


def libraries(ctx: Context, build: BuildEnv, wheel: Path) -> dict[str, str]:
    """Refuse a wheel that is not what it should be. Returns its libraries' sha256 by name."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
    brought = ms_runtime.files() if ctx.spec.platform == "windows" else ()
    wrong = problems(
        sizes,
        cuda=ctx.spec.cuda is not None,
        brought=brought,
        left_out=build.settings.get("cmake.define.BLACKWHEEL_LEFT_OUT", "").split(";"),
    )
    if wrong:
        raise Problem(
            "The finished wheel does not contain what it should.",
            id="wheel-contents",
            code=CHECK_FAILED,
            evidence="\n".join(wrong),
            remedy=again(ctx.spec),
        )
    tools = build_tools.tools(ctx)
    # W004 takes libggml-base.so for a Python module with a name that cannot be imported; W009 and
    # W010 do not know the folder of delvewheel.
    ignored = "W004,W009,W010" if brought else "W004"
    for name, words in (("twine", ["check"]), ("check-wheel-contents", ["--ignore", ignored])):
        program = str(venvs.program(tools, name))
        done = programs.capture([program, *words, str(wheel)], env=build.variables)
        if done.returncode:
            raise Problem(
                f"{name} refuses the wheel.",
                id="wheel-check-refused",
                code=CHECK_FAILED,
                evidence=venvs.tail(done.output),
                remedy=again(ctx.spec),
            )
    with zipfile.ZipFile(wheel) as archive:
        libraries = [n for n in sizes if "/lib/" in n or (is_brought(n) and n.endswith(".dll"))]
        return {Path(n).name: hashlib.sha256(archive.read(n)).hexdigest() for n in libraries}


def again(spec: BuildSpec) -> str:
    """The remedy where a build went wrong and nobody knows why."""
    return f"{command_of('wheel', spec, '--fresh')}; if it happens again, {REPORT}"


def problems(
    members: Sequence[str] | dict[str, int],
    *,
    cuda: bool,
    brought: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> list[str]:
    """What is wrong with a wheel's list of members: strays, doubles, and what is missing.

    ``brought`` are the libraries that delvewheel has to bring into a wheel for Windows;
    ``left_out`` are the modules for the CPU that would compute wrongly.
    """
    wrong = [
        f"stray: {name}"
        for name in members
        if not name.startswith("llama_cpp/")
        and not name.split("/")[0].endswith(".dist-info")
        and not (brought and is_brought(name))
    ]
    bundled = [ms_runtime.original(n) for n in members if brought and is_brought(n) and ".dll" in n]
    for library in brought:
        if bundled.count(library) != 1:
            wrong.append(f"{bundled.count(library)} copies of {library} instead of one")
    wrong += [f"not asked for: {name}" for name in bundled if name not in brought]
    library_name = re.compile(r"llama_cpp/.*?(?:lib)?([^/]+?)\.(?:so|dll)(?:\.|$)")
    found = [library_name.match(name) for name in members]
    libraries = [match[1] for match in found if match]
    wanted = [*LIBRARIES, *(["ggml-cuda"] if cuda else [])]
    for library in wanted:
        if libraries.count(library) != 1:
            wrong.append(f"{libraries.count(library)} copies of {library} instead of one")
    wrong += [
        f"not asked for: {name}"
        for name in libraries
        if name not in (*wanted, "gomp")
        and (not name.startswith("ggml-cpu-") or name.removeprefix("ggml-cpu-") in left_out)
    ]
    added = import_hooks.added(cuda=cuda, windows=bool(brought))
    wrong += [f"missing: llama_cpp/{n}" for n in added if f"llama_cpp/{n}" not in members]
    return wrong


def is_brought(member: str) -> bool:
    """Whether a member is where delvewheel puts what it copies in."""
    return member.startswith(f"{ms_runtime.FOLDER}/")
