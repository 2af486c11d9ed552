"""The session configure: writes the environment and the CMake settings of a build."""

from __future__ import annotations

from pathlib import Path

from sessions.build.cmake_settings import Places, configure
from sessions.fetch import build_tools
from sessions.fetch.record_types import Source, Toolkit
from sessions.probe.record_types import Toolchain
from sessions.shared import child_environment, console, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE, Problem
from sessions.targets import user_cmake_options


def main(ctx: Context) -> None:
    """Write the record of the build's environment and settings."""
    chain = ctx.need("probe", Toolchain)
    source = ctx.need("source", Source)
    toolkit = ctx.need("toolkit", Toolkit) if ctx.spec.cuda else None
    assert chain.compiler is not None  # the probe fails without one
    _check_cmake_options(ctx.spec, Path(source.path))
    env = child_environment.system_environment(ctx.env)
    tools = build_tools.tools(ctx)
    places = Places(
        stage=str(ctx.build / "src"),
        tree=str(ctx.build / "tree"),
        cache=str(ctx.cache),
        tools=str(tools),
    )
    python = chain.python.version if chain.python else ""
    build = configure(ctx.spec, chain.compiler, toolkit, source, places, env, python=python)
    records.write(ctx.record("configure"), "configure", build)
    console.done(f"configure: {', '.join(ctx.spec.archs) or 'CPU'}, {chain.compiler_why}")


def _check_cmake_options(spec: BuildSpec, source: Path) -> None:
    """Raises Problem for an option that no CMake file reads."""
    if unknown := user_cmake_options.unknown((name for name, _ in spec.cmake), source):
        raise Problem(
            f"llama.cpp of this release has no option {unknown[0]}.",
            id="cmake-option-unknown",
            code=USAGE,
            evidence=f"no CMake file in {source} names {', '.join(unknown)}",
            remedy="leave it out, or choose another release with --version",
        )
