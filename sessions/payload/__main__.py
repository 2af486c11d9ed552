"""Every check that a wheel computes, and computes right. Runs in a venv that holds the wheel.

``python -I payload JOB REPORT`` with two JSON files: what to test, and where the answer goes. Each
check runs in a process of its own (``python -I payload --child JOB``). Standard library only here:
what the wheel brings is imported in the children. With ``--bench`` before them, wheels are measured
instead (bench.py); with ``--ops``, upstream's operator test is run (ops.py).
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
# With which each of the wheel's modules for the CPU is tested: what loses nothing, one that is
# repacked for the CPU, and the most used ones; one token, and many.
MODULE_TYPES = ("F16", "Q4_0", "Q8_0", "Q4_K")
MODULE_CASES = [
    number
    for number, case in enumerate(child.CASES)
    if case["batch"] in (1, 32) and case["flash"] and case["kv"] == "f16"
]
TIMEOUT = 300.0  # seconds for one child; on a GPU the longest takes a few, on two CPU cores 60


def main() -> None:
    """Run one child, or all of them."""
    spawn.quiet_crashes()
    if sys.argv[1] == "--child":
        job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        child.WORK[job["work"]](job)
        return
    if sys.argv[1] == "--bench":
        import bench

        bench.main(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1] == "--ops":
        import ops

        ops.main(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    report = prove(job)
    Path(sys.argv[2]).write_text(report_file.text(report), encoding="utf-8")


def prove(job: Job) -> Job:
    """Everything that was found, and the judgement of it."""
    start = time.monotonic()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
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
            break  # what cannot be imported tests nothing further
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
        checks.append(family_checks.check(job, found))
    times = found.get("times", {})
    return {
        **job["identity"],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "started": started,
        "seconds": round(time.monotonic() - start, 1),
        "checks": checks,
        "cases": smoke_checks.cases(job, found),
        "features": feature_checks.answers(job, found),
        "families": {
            "set": job["family_set"],
            "rows": family_checks.rows_of(found),
            "operations": sorted(
                {each for part in found.get("families", {}).values() for each in part["operations"]}
            ),
        },
        "times": {
            "import_seconds": found["device"].get("import_seconds"),
            **{
                k: v
                for k, v in times.items()
                if k.endswith(("_second", "_seconds")) and "child" not in k
            },
        },
        "system_info": found["device"].get("system", ""),
    }


def progress(done: int, total: int, now: str, start: float) -> None:
    """One line for whoever started this; ``left`` is an estimate in seconds."""
    left = (time.monotonic() - start) * (total - done) / done if done > 3 else None
    print("@" + json.dumps({"done": done, "total": total, "now": now, "left": left}), flush=True)


def answers(job: Job, name: str) -> Job:
    """All cases of one GGML type; after a crash, those that come after the case that crashed."""
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
        if at is None:  # it crashed before any case: the model itself
            results.append({"type": name, "error": found["error"]})
            break
        results.append({"type": name, **child.CASES[at], "error": found["error"]})
        first = at + 1
        if len([r for r in results if "error" in r]) >= 3:
            results.append({"type": name, "error": "given up after three crashes"})
            break
    return {**whole, "results": results}


def family_pairs(job: Job) -> list[tuple[str, str]]:
    """(family, type) of the job's plan: each is one process."""
    rows = family_checks.planned(job)
    return list(dict.fromkeys((row["family"], row["type"]) for row in rows))


def family(job: Job, name: str, kind: str) -> Job:
    """Every way of one family in one type; a crash ends it, and its rows say so."""
    plan = [r for r in family_checks.planned(job) if (r["family"], r["type"]) == (name, kind)]
    ways = [{part: row[part] for part in family_checks.KEY[2:]} for row in plan]
    told = {
        "file": str(Path(job["families_folder"]) / f"{name}.npz"),
        "sha256": job["families"][name]["sha256"][kind],
        "encoder": job["families"][name]["encoder"],
        "ways": ways,
    }
    found = run_child(job, "family", type=kind, first=name, **told)
    whole = {"family": name, "type": kind}
    rows = [family_checks.row(whole, result) for result in found.pop("results")]
    if found["error"]:
        rows.append({**whole, "error": found["error"]})
    elif not job.get("plant") and found.get("sha256") != told["sha256"]:
        rows.append(
            {**whole, "error": "the model made here is not the one whose answers are known"}
        )
    return {**found, "rows": rows, "operations": found.get("operations", [])}


def modules(job: Job, scores: dict[str, int]) -> dict[str, list[Job]]:
    """What each of the wheel's modules for the CPU that can run here computes, on the CPU."""
    asked = [(name, type_) for name in sorted(scores) if scores[name] for type_ in MODULE_TYPES]

    def one(name: str, type_: str) -> Job:
        return run_child(job, "answers", type=type_, cpu=name, layers=0, only=MODULE_CASES)

    with concurrent.futures.ThreadPoolExecutor(job["jobs"]) as pool:
        done = pool.map(lambda pair: one(*pair), asked)
        found: dict[str, list[Job]] = {}
        for (name, type_), part in zip(asked, done):
            found.setdefault(name, []).append({"type": type_, **part})
    return found


def run_child(job: Job, work: str, **more: Any) -> Job:
    """What a child said, its lines laid over one another; ``error`` is None if it ended well."""
    name = f"{work}-{more.get('type', '')}-{more.get('cpu', more.get('first', ''))}"
    path = Path(job["folder"]) / f"{name}.json"
    job = {**job, **more, "work": work}
    path.write_text(json.dumps(job), encoding="utf-8")
    visible = job["visible"] if job["layers"] or job.get("plant") else "-1"
    if more.get("type") == "two-gpus":
        visible = f"{visible},{job['second']}"
    environment = {
        "CUDA_CACHE_PATH": job["jit_cache"],
        "CUDA_DISABLE_PTX_JIT": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": visible,
        "BLACKWHEEL_CPU": job.get("cpu", ""),
    }
    start = time.monotonic()
    said, error = spawn.spawn(sys.executable, path, environment, job.get("timeout", TIMEOUT))
    merged: Job = {}
    for line in said:
        merged.update(line)
    merged.pop("result", None)
    results = [line["result"] for line in said if "result" in line]
    lines = {"results": results} if work in ("answers", "family", "feature") else {}
    if work == "family":
        lines["operations"] = sorted({n for line in said for n in line.get("operations", ())})
    if work == "real":
        lines = {"answers": [line for line in said if "question" in line]}
    if more.get("type") == "tokenizers":
        lines = {"tokenized": [line["tokenized"] for line in said if "tokenized" in line]}
    seconds = round(time.monotonic() - start, 2)
    return {**merged, **lines, "error": error, "child_seconds": seconds}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C: what it was started by says so
        sys.exit(130)
