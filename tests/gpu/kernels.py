"""Counts the kernels of a wheel that `smoke` and `ops` start, with CUPTI in each process.

    BLACKWHEEL_BUNDLE=smoke-hopper.pyz python -m tests.gpu.kernels FACTS RESULT

It needs a GPU, and PyTorch for CUDA in this Python. FACTS is the ``facts.json`` of the wheel
(``verify``), which has its kernel families. It writes the families that `smoke` and `ops` start to
RESULT. It takes five minutes on an H200.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Each process of the venv imports it at its start; the process of a check has `--child`.
RECORDER = """
import os, sys
if os.environ.get("KERNELS") and "--child" in sys.orig_argv:
    import atexit
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile
    running = [profile(activities=[ProfilerActivity.CUDA])]
    running[0].start()

    def end():
        while running:
            profiled = running.pop()
            profiled.stop()
            names = {e.name for e in profiled.events() if e.device_type == DeviceType.CUDA}
            path = os.path.join(os.environ["KERNELS"], f"{os.getpid()}.txt")
            open(path, "w").write("\\n".join(sorted(names)))

    def leave(code, leave=os._exit):
        end()
        leave(code)

    atexit.register(end)
    os._exit = leave
"""


def family(kernel: str) -> str:
    """The function, or the outermost namespace, in the C++ name of a kernel."""
    name = re.sub(r"^\w+ (?=\w)", "", kernel.replace("(anonymous namespace)::", ""))
    return re.split(r"[<(]|::", name)[0].strip()


def coverage(sizes: dict[str, int], started: dict[str, set[str]]) -> dict[str, tuple[int, float]]:
    """For `smoke`, `ops` and `neither`: the number of families and their share of the machine code.

    ``sizes``: family -> bytes. ``started``: `smoke` and `ops` -> the families that were started.
    """
    rows = {name: [f for f in sizes if f in found] for name, found in started.items()}
    rows["neither"] = [f for f in sizes if not any(f in found for found in started.values())]
    whole = sum(sizes.values())
    return {n: (len(r), round(100 * sum(sizes[f] for f in r) / whole, 1)) for n, r in rows.items()}


def wheel_kernels(facts: dict[str, Any]) -> dict[str, int]:
    """The kernel families of a wheel and the bytes of their machine code, from verify."""
    found: dict[str, int] = {}
    for library in facts["facts"]["libraries"]:
        found |= (library.get("device") or {}).get("kernels") or {}
    return found


def main(facts: str, result: str) -> None:
    """Run both; print and write the families that were started."""
    from tests.gpu.test_defects import Bench

    torch = importlib.util.find_spec("torch")
    assert torch is not None, "PyTorch is not here"
    assert torch.origin is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = Bench(folder)
        (site,) = (folder / "venv").glob("lib/*/site-packages")
        (site / "kernel_recorder.py").write_text(RECORDER)
        packages = Path(torch.origin).resolve().parents[1]
        (site / "zz_kernels.pth").write_text(f"{packages}\nimport kernel_recorder\n")
        libraries, bundle = site / "llama_cpp" / "lib", folder / "bundle"
        test = bench.manifest["ops"]["library"]
        shutil.copy(bundle / "ops" / test, libraries / test)
        common = {"visible": bench.card["visible"], "runtime_places": bench.places}
        common |= {"identity": {"file": "", "device": ""}}
        smoke = {"layers": 999, "index": 0, "second": None, "jobs": 8, "venv": str(folder / "venv")}
        smoke |= {"model": None, "families_folder": str(bundle / "families")}
        ops = {"library": str(libraries / test), "reference": None, "cores": os.cpu_count()}
        ops |= {"memory_mib": bench.card["memory_free_mib"]}
        jobs = {
            "smoke": {**bench.manifest["job"], **smoke},
            "ops": {**bench.manifest["ops"], **ops},
        }
        started: dict[str, set[str]] = {}
        for name, job in jobs.items():
            work, seen = folder / name, folder / f"{name}-kernels"
            work.mkdir()
            seen.mkdir()
            path = folder / f"{name}.json"
            path.write_text(json.dumps({**job, **common, "folder": str(work)}))
            words = [*(["--ops"] if name == "ops" else []), str(path), str(work / "report")]
            subprocess.run(
                [bench.python, "-I", str(bundle / "payload"), *words],
                check=True,
                env={**os.environ, "KERNELS": str(seen)},
                cwd=work,
                stdout=subprocess.DEVNULL,
            )
            texts = [file.read_text() for file in seen.glob("*.txt")]
            started[name] = {family(line) for text in texts for line in text.splitlines() if line}
    sizes = wheel_kernels(json.loads(Path(facts).read_text()))
    print(coverage(sizes, started))
    rows = {name: sorted(found & set(sizes)) for name, found in started.items()}
    Path(result).write_text(json.dumps({"kernels": sizes, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
