"""Tests that a wheel computes the right results; runs in a venv that has the wheel.

``python -I payload JOB REPORT`` with two JSON files: the job, and the report that it writes. Each
check runs in its own process (``python -I payload --child JOB``), which imports the wheel; this
process imports the standard library only. ``--bench`` before the files measures wheels instead
(bench.py), and ``--ops`` runs upstream's operator test (ops.py).
"""

from __future__ import annotations

import concurrent.futures
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import child
import family_checks
import feature_checks
import report_file
import smoke_checks
import spawn

Job = dict[str, Any]
# The tests of each CPU module of a wheel: an exact type, one that is repacked for the CPU, and the
# most used ones; with one token and with many.
MODULE_TYPES = ("F16", "Q4_0", "Q8_0", "Q4_K")
MODULE_CASES = [
    number
    for number, case in enumerate(child.CASES)
    if case["batch"] in (1, 32) and case["flash"] and case["kv"] == "f16"
]
TIMEOUT = 300.0  # seconds for a child; the longest takes a few on a GPU, 60 on two CPU cores


def main() -> None:
    """Run a child, a benchmark, the operator test, or every check."""
    spawn.quiet_crashes()
    if sys.argv[1] == "--child":
        job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        child.WORK[job["work"]](job)
    elif sys.argv[1] == "--bench":
        import bench

        bench.main(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "--ops":
        import ops

        ops.main(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        Path(sys.argv[2]).write_text(report_file.text(run(job)), encoding="utf-8")


def run(job: Job) -> Job:
    """Run every check of a job. Returns the report."""
    start, started = time.monotonic(), spawn.started()
    folder = Path(job["folder"])
    cache = folder / "jit-cache"
    cache.mkdir(parents=True, exist_ok=True)
    job = {**job, "jit_cache": str(cache), "cases": len(child.CASES)}
    alone = ["device", "offload", "api", "times", *(["real"] if job.get("model") else [])]
    features = feature_checks.names(job)
    families = family_pairs(job)
    total = len(alone) + len(features) + len(job["types"]) + len(families) + 1
    found: Job = {}
    for number, work in enumerate(alone):
        progress(number, total, work, start)
        found[work] = run_child(job, work)
        if work == "device" and found[work]["error"]:
            break  # a wheel that cannot be imported has nothing else to test
    else:
        found["answers"], found["families"] = {}, {}
        with concurrent.futures.ThreadPoolExecutor(job["jobs"]) as pool:
            others = {pool.submit(run_child, job, "feature", type=n): n for n in features}
            waiting = {pool.submit(answers, job, name): name for name in job["types"]}
            both = {**others, **waiting}
            for number, done in enumerate(concurrent.futures.as_completed(both), len(alone) + 1):
                place = found if done in others else found["answers"]
                place[both[done]] = done.result()
                progress(number, total, both[done], start)
            doing = {pool.submit(family, job, *pair): pair for pair in families}
            for number, done in enumerate(concurrent.futures.as_completed(doing), 1):
                found["families"][doing[done]] = done.result()
                progress(total - 1 - len(families) + number, total, doing[done][0], start)
        progress(total - 1, total, "modules", start)
        found["modules"] = modules(job, found["device"].get("modules") or {})
    found["jit_files"] = sum(path.is_file() for path in cache.rglob("*"))
    checks = smoke_checks.evaluate(job, found) + feature_checks.evaluate(job, found)
    if not found["device"]["error"]:
        checks.append(feature_checks.families(job, found))
    family_parts = found.get("families", {}).values()
    return {
        **job["identity"],
        "python": platform.python_version(),
        "system": spawn.system(),
        "started": started,
        "seconds": round(time.monotonic() - start, 1),
        "checks": checks,
        "cases": smoke_checks.cases(job, found),
        "features": feature_checks.answers(job, found),
        "families": {
            "set": job["family_set"],
            "rows": family_checks.rows_of(found),
            "operations": sorted({name for part in family_parts for name in part["operations"]}),
        },
        "times": {
            "import_seconds": found["device"].get("import_seconds"),
            **{
                name: value
                for name, value in found.get("times", {}).items()
                if name.endswith(("_second", "_seconds")) and name != "child_seconds"
            },
        },
        "system_info": found["device"].get("system", ""),
    }


def progress(done: int, total: int, now: str, start: float) -> None:
    """Print the progress, with an estimate of the time left after the first three steps."""
    left = (time.monotonic() - start) * (total - done) / done if done > 3 else None
    spawn.progress(done, total, now, left)


def answers(job: Job, name: str) -> Job:
    """Compute all cases of one GGML type; after a crash, the cases after the one that crashed."""
    results: list[Job] = []
    whole: Job = {}
    first = 0
    while first < len(child.CASES):
        found = run_child(job, "answers", type=name, first=first)
        results += found.pop("results")
        whole = {**found, **whole}
        if not found["error"]:
            break
        at = found.get("case")
        if at is None:  # it crashed while it loaded the model
            results.append({"type": name, "error": found["error"]})
            break
        results.append({"type": name, **child.CASES[at], "error": found["error"]})
        first = at + 1
        if len([r for r in results if "error" in r]) >= 3:
            results.append({"type": name, "error": "given up after three crashes"})
            break
    return {**whole, "results": results}


def family_pairs(job: Job) -> list[tuple[str, str]]:
    """The pairs (family, type) in the job's plan. Each is computed in one process."""
    rows = family_checks.planned(job)
    return list(dict.fromkeys((row["family"], row["type"]) for row in rows))


def family(job: Job, name: str, kind: str) -> Job:
    """Compute all planned cases of one family in one type. After a crash, one row has the error."""
    plan = [r for r in family_checks.planned(job) if (r["family"], r["type"]) == (name, kind)]
    given = {
        "file": str(Path(job["families_folder"]) / f"{name}.npz"),
        "sha256": job["families"][name]["sha256"][kind],
        "encoder": job["families"][name]["encoder"],
        "ways": [{part: row[part] for part in family_checks.KEY[2:]} for row in plan],
    }
    found = run_child(job, "family", type=kind, first=name, **given)
    whole = {"family": name, "type": kind}
    rows = [family_checks.row(whole, result) for result in found.pop("results")]
    if found["error"]:
        rows.append({**whole, "error": found["error"]})
    elif not job.get("plant") and found.get("sha256") != given["sha256"]:
        rows.append(
            {**whole, "error": "the model made here is not the one whose answers are known"}
        )
    return {**found, "rows": rows, "operations": found.get("operations", [])}


def modules(job: Job, scores: dict[str, int]) -> dict[str, list[Job]]:
    """Compute with each CPU module of the wheel that can run here: module -> results per type."""
    pairs = [(name, type_) for name in sorted(scores) if scores[name] for type_ in MODULE_TYPES]

    def one(pair: tuple[str, str]) -> Job:
        name, type_ = pair
        return run_child(job, "answers", type=type_, cpu=name, layers=0, only=MODULE_CASES)

    found: dict[str, list[Job]] = {}
    with concurrent.futures.ThreadPoolExecutor(job["jobs"]) as pool:
        for (name, type_), part in zip(pairs, pool.map(one, pairs)):
            found.setdefault(name, []).append({"type": type_, **part})
    return found


def run_child(job: Job, work: str, **more: Any) -> Job:
    """Run a child. Returns the values of its lines; ``error`` is None if it succeeded."""
    name = f"{work}-{more.get('type', '')}-{more.get('cpu', more.get('first', ''))}"
    path = Path(job["folder"]) / f"{name}.json"
    job = {**job, **more, "work": work}
    path.write_text(json.dumps(job), encoding="utf-8")
    visible = job["visible"] if job["layers"] or job.get("plant") else "-1"
    if more.get("type") == "two-gpus":
        visible = f"{visible},{job['second']}"
    environment = {
        **spawn.NATIVE_ONLY,
        "CUDA_CACHE_PATH": job["jit_cache"],
        "CUDA_VISIBLE_DEVICES": visible,
        "BLACKWHEEL_CPU": job.get("cpu", ""),
    }
    start = time.monotonic()
    lines, error = spawn.spawn(sys.executable, path, environment, job.get("timeout", TIMEOUT))
    found = spawn.merged(lines)
    found.pop("result", None)
    if work in ("answers", "family", "feature"):
        found["results"] = [line["result"] for line in lines if "result" in line]
    if work == "family":
        found["operations"] = sorted({n for line in lines for n in line.get("operations", ())})
    if work == "real":
        found = {**found, "answers": [line for line in lines if "question" in line]}
    if more.get("type") == "tokenizers":
        found["tokenized"] = [line["tokenized"] for line in lines if "tokenized" in line]
    return {**found, "error": error, "child_seconds": round(time.monotonic() - start, 2)}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the parent process prints that it was stopped
        sys.exit(130)
