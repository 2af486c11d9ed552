"""Checks that a built wheel contains what it must, and nothing else."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sessions.build import import_hooks
from sessions.build.record_types import BuildEnv
from sessions.fetch import build_tools
from sessions.probe import ms_runtime
from sessions.shared import programs, venvs
from sessions.shared.build_spec import BuildSpec
from sessions.shared.command_text import command as command_of
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, REPORT, Problem

LIBRARIES = ("ggml", "ggml-base", "ggml-cpu-x64", "llama", "mtmd")


def libraries(ctx: Context, build: BuildEnv, wheel: Path) -> dict[str, str]:
    """The SHA-256 of each library in the wheel. Raises Problem if the contents are wrong."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
    vendored = ms_runtime.files() if ctx.spec.platform == "windows" else ()
    wrong = problems(
        sizes,
        cuda=ctx.spec.cuda is not None,
        vendored=vendored,
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
    # W004 takes libggml-base.so for a Python module whose name cannot be imported. W009 and W010 do
    # not know delvewheel's folder.
    ignored = "W004,W009,W010" if vendored else "W004"
    for name, args in (("twine", ["check"]), ("check-wheel-contents", ["--ignore", ignored])):
        program = str(venvs.program(tools, name))
        done = programs.capture([program, *args, str(wheel)], env=build.variables)
        if done.returncode:
            raise Problem(
                f"{name} refuses the wheel.",
                id="wheel-check-refused",
                code=CHECK_FAILED,
                evidence=venvs.tail(done.output),
                remedy=again(ctx.spec),
            )
    with zipfile.ZipFile(wheel) as archive:
        libraries = [n for n in sizes if "/lib/" in n or (is_vendored(n) and n.endswith(".dll"))]
        return {Path(n).name: hashlib.sha256(archive.read(n)).hexdigest() for n in libraries}


def again(spec: BuildSpec) -> str:
    """The remedy after an error of unknown cause."""
    return f"{command_of('wheel', spec, '--fresh')}; if it happens again, {REPORT}"


def problems(
    members: Sequence[str] | dict[str, int],
    *,
    cuda: bool,
    vendored: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> list[str]:
    """What is wrong with the list of members: unexpected, duplicate and missing files.

    ``vendored`` are the DLLs that delvewheel must copy into a Windows wheel. ``left_out`` are the
    CPU modules that would compute wrong results.
    """
    wrong = [
        f"stray: {name}"
        for name in members
        if not name.startswith("llama_cpp/")
        and not name.split("/")[0].endswith(".dist-info")
        and not (vendored and is_vendored(name))
    ]
    bundled = [
        ms_runtime.original(n) for n in members if vendored and is_vendored(n) and ".dll" in n
    ]
    for library in vendored:
        if bundled.count(library) != 1:
            wrong.append(f"{bundled.count(library)} copies of {library} instead of one")
    wrong += [f"not asked for: {name}" for name in bundled if name not in vendored]
    library_name = re.compile(r"llama_cpp/.*?(?:lib)?([^/]+?)\.(?:so|dll)(?:\.|$)")
    found = [library_name.match(name) for name in members]
    libraries = [match[1] for match in found if match]
    expected = [*LIBRARIES, *(["ggml-cuda"] if cuda else [])]
    for library in expected:
        if libraries.count(library) != 1:
            wrong.append(f"{libraries.count(library)} copies of {library} instead of one")
    wrong += [
        f"not asked for: {name}"
        for name in libraries
        if name not in (*expected, "gomp")
        and (not name.startswith("ggml-cpu-") or name.removeprefix("ggml-cpu-") in left_out)
    ]
    added = import_hooks.added(cuda=cuda, windows=bool(vendored))
    wrong += [f"missing: llama_cpp/{n}" for n in added if f"llama_cpp/{n}" not in members]
    return wrong


def is_vendored(member: str) -> bool:
    """Whether a member is in the folder into which delvewheel copies."""
    return member.startswith(f"{ms_runtime.FOLDER}/")
