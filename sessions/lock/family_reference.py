"""Computes the files of model families: ``nox -s lock -- --add family==NAME``, or ``all``."""

from __future__ import annotations

import json
import math
import os
import tarfile
from pathlib import Path
from typing import Any

from sessions.fetch import build_tools
from sessions.run import families, smoke_input
from sessions.shared import child_environment, console, knowledge, programs, records, venvs
from sessions.shared.context import Context
from sessions.shared.errors import CHECK_FAILED, USAGE, Problem

PROGRAM = Path(__file__).with_name("family_program.py")
PYTHON = "BLACKWHEEL_FAMILIES_PYTHON"  # a Python that has torch and transformers, as locked


def lock(ctx: Context, name: str) -> None:
    """Write ``data/families/NAME.npz`` and its digests in the manifest; each family for "all"."""
    rows = requested(name)
    facts = knowledge.load("families.toml")
    with ctx.scratch() as folder:
        sdist = _sdist(ctx, folder, facts["made"]["llama-cpp-python"])
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "source", filter="data")
        (converter,) = (folder / "source").glob("*/vendor/llama.cpp")
        paths = (smoke_input.PAYLOAD, converter / "gguf-py", converter)
        job = {
            "folder": str(folder),
            "into": str(families.FAMILIES),
            "made": facts["made"],
            "families": rows,
        }
        records.write_text(folder / "job.json", json.dumps(job))
        python = ctx.env.get(PYTHON) or str(
            venvs.program(build_tools.own(ctx, "families"), "python")
        )
        with (folder / "families.log").open("w", encoding="utf-8") as log:
            done = programs.stream(
                [python, str(PROGRAM), str(folder / "job.json")],
                env={
                    **child_environment.system_environment(ctx.env),
                    "PYTHONPATH": os.pathsep.join(map(str, paths)),
                    "HF_HUB_OFFLINE": "1",  # transformers must not use the network
                },
                log=log,
                on_line=_record_result,
                cwd=folder,
            )
        if done.returncode:
            text = (folder / "families.log").read_text(encoding="utf-8")
            raise Problem(
                f"The reference results of {name} could not be computed.",
                id="lock-family-failed",
                code=CHECK_FAILED,
                evidence=venvs.tail(text),
                remedy="correct the row of the family in "
                "sessions/data/knowledge/families.toml, then run the "
                "same command again",
            )


def _sdist(ctx: Context, folder: Path, version: str) -> Path:
    """Download the locked source of a release; its converter writes the headers."""
    sdist = knowledge.sdists()[version]
    pin = folder / "requirements.txt"
    records.write_text(pin, f"llama-cpp-python=={version} --hash=sha256:{sdist.sha256}\n")
    words = ["download", "--no-deps", "--no-build-isolation", "--no-binary=:all:"]
    words += ["--require-hashes", "-d", str(folder), "-r", str(pin)]
    venvs.pip(ctx, build_tools.own(ctx), words, f"the source of llama-cpp-python {version}")
    return folder / sdist.file


def _record_result(line: str) -> None:
    """Write the program's result for a family into the manifest, and print it."""
    if not line.startswith("@{"):
        return
    found = json.loads(line[1:])
    path = families.FAMILIES / families.MANIFEST
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known[found["family"]] = found["sha256"]
    records.write_text(path, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    console.say(
        f"  {found['family']}: {found['bytes'] / 1000:.0f} kB, margin {found['margin']:.2g}"
    )


def requested(name: str) -> dict[str, Any]:
    """The rows of the named families for the program. Raises Problem for an unknown name."""
    facts = knowledge.load("families.toml")
    every = facts["family"]
    if name != "all" and name not in every:
        raise Problem(
            f"There is no model family {name}.",
            id="lock-family-unknown",
            code=USAGE,
            evidence=f"families.toml has {', '.join(every)}",
            remedy="choose one of those: nox -s lock -- --add family==NAME",
        )
    return {each: _row(facts, every[each]) for each in (every if name == "all" else [name])}


def _row(facts: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    base = {} if "text_config" in row["config"] else facts["base"]
    found: dict[str, Any] = _json({**row, "config": {**base, **row["config"]}})
    return found


def _json(value: Any) -> Any:
    """A value for JSON, which has no infinity: the text "inf" replaces it."""
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value
