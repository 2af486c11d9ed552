"""Measures the effect of nvcc's options on a sample of the CUDA steps of a build.

    python -m lab.optimizations build/rtx50 --option=-Xcompiler=-O1 --option=--split-compile=2
    python -m lab.optimizations build/rtx50 --take=-compress-mode=size

Each step of the sample is compiled with the options of the build and with each change, without a
compiler cache and into a temporary folder. The sums of CPU and wall times are printed. No other
heavy program may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import time
from pathlib import Path


def chosen(build: Path, every: int) -> list[list[str]]:
    """The commands of every ``every``-th CUDA step, sorted by time."""
    steps = json.loads((build / "steps.json").read_text(encoding="utf-8"))["steps"]["steps"]
    took = {s["output"]: s["end"] - s["start"] for s in steps if s["kind"] == "cuda"}
    commands = {}
    for entry in json.loads((build / "tree" / "compile_commands.json").read_text("utf-8")):
        commands[os.path.relpath(entry["output"], entry["directory"])] = entry["command"]
    names = sorted(took, key=lambda name: took[name])
    return [shlex.split(commands[name]) for name in names[every // 2 :: every]]


def compiled(words: list[str], tree: Path) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and bytes of the object of one command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "a.o")
        words = [*words[: words.index("-o")], "-o", str(out)]
        before, start = os.times(), time.monotonic()
        subprocess.run(words, cwd=tree, check=True, capture_output=True)
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        return cpu, time.monotonic() - start, out.stat().st_size


def main() -> None:
    """Measure each change, and print one row for it."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    p.add_argument("build", type=Path, help="build/TARGET of a finished build")
    p.add_argument("--option", action="append", default=[], help="add it; may be given again")
    p.add_argument("--take", action="append", default=[], help="leave it out; may be given again")
    p.add_argument("--every", type=int, default=8, help="which steps: every 8th by length")
    args = p.parse_args()
    tree = args.build.resolve() / "tree"
    changes: dict[str, tuple[list[str], str]] = {"as built": ([], "")}
    changes |= {f"with {option}": (shlex.split(option), "") for option in args.option}
    changes |= {f"without {option}": ([], option) for option in args.take}
    total = {name: [0.0, 0.0, 0] for name in changes}
    commands = chosen(args.build.resolve(), args.every)
    for words in commands:
        for name, (more, less) in changes.items():
            if less and less not in words:
                p.error(f"{less} is in no command: {shlex.join(words)}")
            kept = [word for word in words if word != less]
            found = compiled([*kept[: kept.index("-o")], *more, *kept[kept.index("-o") :]], tree)
            total[name] = [a + b for a, b in zip(total[name], found, strict=True)]
    base = total["as built"]
    print(f"{len(commands)} CUDA steps\n\n| | CPU | | wall | | objects | |\n|{' --- |' * 7}")
    for name, row in total.items():
        cells = [f"{row[0]:.1f} s", f"{row[1]:.1f} s", f"{row[2] / 1e6:.2f} MB"]
        pairs = zip(cells, row, base, strict=True)
        print(f"| {name} |", " | ".join(f"{c} | {a / b:.3f}" for c, a, b in pairs), "|")


if __name__ == "__main__":
    main()
