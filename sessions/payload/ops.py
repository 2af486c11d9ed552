"""Tests every operator of ggml with upstream's test, in a venv that has the wheel.

``python -I payload --ops JOB REPORT``. The test (test-backend-ops.cpp) is a library that exports
its ``main``. Each process first imports the wheel, whose loader finds CUDA, and then calls that
function; the test uses the libraries that are already loaded. A process tests one operator or a
part of its cases; if it crashes or hangs, the report names the case.
"""

from __future__ import annotations

import concurrent.futures
import csv
import ctypes
import hashlib
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ops_checks
import report_file
import spawn

Job = dict[str, Any]
SLICE = 100  # cases of one process; starting CUDA takes a second in each
SEEDS = (2, 3, 4)  # for the repetitions of a wrong case; the first run has seed 1
MEMORY_MIB = 1500  # GPU memory of one process: CUDA takes 600, the largest cases some hundred
TIMEOUT = 1800.0  # seconds for one process
STILL = 300.0  # seconds without an answer; the first case of IQ1_S takes 40 on a slow machine
CRASHES = 3  # after so many crashes, the rest of a slice is skipped
STATE = "state.json"
COLOR = re.compile(r"\x1b\[[0-9;]*m")
# The error of a case precedes its name: "[MUL_MAT] NMSE = 0.04 > 0.0005   MUL_MAT(…): FAIL"
ROW = re.compile(r"^(?P<error>.*?) {2}(?P<case>\w+\(.*\)): (?P<status>OK|FAIL|not supported.*?) *$")


def main(job_path: Path, report_path: Path) -> None:
    """Run the slices that are not done yet, and write the report."""
    spawn.quiet_crashes()
    job: Job = json.loads(job_path.read_text(encoding="utf-8"))
    report_path.write_text(report_file.text(run(job), report_file.OPS), encoding="utf-8")


def run(job: Job) -> Job:
    """Run the job, or continue an earlier run from its state. Returns the report."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    state = _state(folder, job)
    start, before = time.monotonic(), state["seconds"]
    listing = state["listing"] or listed(job)
    state["listing"] = listing
    slices = plan(job, listing["cases"])
    waiting = [s for s in slices if s["key"] not in state["done"]]
    total = sum(len(s["cases"]) for s in slices)
    done = total - sum(len(s["cases"]) for s in waiting)
    with concurrent.futures.ThreadPoolExecutor(at_once(job)) as pool:
        running = {pool.submit(slice_of, job, s): s for s in waiting}
        try:
            for future in concurrent.futures.as_completed(running):
                piece = running[future]
                state["done"][piece["key"]] = future.result()
                done += len(piece["cases"])
                state["seconds"] = before + time.monotonic() - start
                _write(folder / STATE, state)
                left = state["seconds"] * (total - done) / done if done > total / 20 else None
                spawn.progress(done, total, piece["operator"], left)
        except BaseException:  # stopped: the next run does the waiting slices
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    report = {
        **job["identity"],
        "python": platform.python_version(),
        "system": spawn.system(),
        "started": state["started"],
        "seconds": round(before + time.monotonic() - start, 1),
        "stops": state["stops"],
        "version": job["version"],
        "backend": job["backend"],
        **summary(listing, [(s, state["done"][s["key"]]) for s in slices]),
    }
    return {**report, "checks": ops_checks.checks(report, job["expected"])}


def at_once(job: Job) -> int:
    """The number of simultaneous processes; on a GPU, each needs two threads and its own VRAM."""
    cores = job["cores"]
    if job["backend"] == "SCALAR":
        return max(1, int(cores))
    memory = (job["memory_mib"] or 4096) // MEMORY_MIB
    return int(max(1, min(10, cores * 2 // 3, memory)))


def _state(folder: Path, job: Job) -> Job:
    """The state of an earlier run of the same job, or an empty one."""
    same = {name: job[name] for name in ("identity", "backend", "expected", "version", "only")}
    key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
    try:
        state: Job = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["key"] == key:
            return {**state, "stops": state["stops"] + 1}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    empty: Job = {"key": key, "started": spawn.started(), "seconds": 0.0, "stops": 0}
    return {**empty, "listing": None, "done": {}}


def _write(path: Path, state: Job) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(state), encoding="utf-8")
    part.replace(path)


def listed(job: Job) -> Job:
    """The cases to test, from the test's own list: [operator, case, count]."""
    words = ["support", "-b", job["backend"], "--output", "csv"]
    output, lines, error = call(job, "listing", words)
    counts: Counter[tuple[str, str]] = Counter()
    header: list[str] = []
    for cells in csv.reader(line for line in output.splitlines() if line.startswith('"')):
        if "op_name" in cells:
            header = cells
            continue
        row = dict(zip(header, cells))  # Python 3.9 has no strict
        counts[row["op_name"], f"{row['op_name']}({row['op_params']})"] += 1
    cases = [
        [operator, case, count]
        for (operator, case), count in counts.items()
        if ops_checks.is_tested(operator, case, job["expected"]["sample"])
    ]
    return {"cases": cases, "error": error, "libraries": lines.get("libraries", [])}


def plan(job: Job, cases: Iterable[Sequence[Any]]) -> list[Job]:
    """The slices, the largest first. A slice has its cases and how often each is in the test.

    Fused operators, which `support` does not list, and cases that the test's filter cannot select
    are selected by the operator's name (``by_name``).
    """
    expected, only = job["expected"], job["only"]
    by_operator: dict[str, list[tuple[str, int]]] = {name: [] for name in expected["cases"]}
    for operator, case, count in cases:
        by_operator.setdefault(operator, []).append((case, count))
    slices: list[Job] = []
    for operator, rows in by_operator.items():
        if only and operator not in only:
            continue
        every = sum(count for _, count in rows) == expected["cases"].get(operator)
        named = every and all("(" not in case[len(operator) + 1 :] for case, _ in rows)
        size = SLICE if named else max(1, len(rows))
        pieces = [rows[n : n + size] for n in range(0, len(rows), size)] or [[]]
        for number, piece in enumerate(pieces):
            made = {
                "key": f"{operator}-{number}",
                "operator": operator,
                "cases": piece,
                "by_name": not named,
                "narrowed": False,
            }
            slices.append(made)
            if operator in expected["narrow"]:
                slices.append({**made, "key": f"{operator}-{number}-narrowed", "narrowed": True})
    sizes = expected["cases"]
    return sorted(
        slices,
        key=lambda s: -(sizes.get(s["operator"], 0) if s["by_name"] else len(s["cases"])),
    )


def slice_of(job: Job, piece: Job) -> Job:
    """Run one slice. Returns the results of its cases and the errors of its processes."""
    begun = time.monotonic()
    left = [case for case, _ in piece["cases"]]
    answers: list[tuple[str, str, str]] = []
    problems: list[str] = []
    libraries: list[str] = []
    while True:
        chosen = [piece["operator"]] if piece["by_name"] else left
        found, lines, error = ask(job, piece, f"{piece['key']}-{len(problems)}", chosen, 1)
        answers += found
        libraries += lines.get("libraries", [])
        if error is None:
            break
        seen = {case for case, _, _ in answers}
        rest = [case for case in left if case not in seen]
        after = found[-1][0] if found else "the start"
        at = f"at {rest[0]}" if rest else "at the end"
        problems.append(f"{at}, after {after}: {error}")
        left = rest[1:]
        if piece["by_name"] or not left or len(problems) == CRASHES:
            break
    tries = again(job, piece, answers)
    return {
        "counts": dict(Counter(status for _, status, _ in answers)),
        "answered": dict(Counter(case for case, _, _ in answers)),
        "wrong": [
            {"case": case, "narrowed": piece["narrowed"], "tries": [error, *tries.get(case, [])]}
            for case, status, error in answers
            if status == "wrong"
        ],
        "problems": problems,
        "libraries": sorted(set(libraries)),
        "seconds": round(time.monotonic() - begun, 2),
    }


def again(job: Job, piece: Job, answers: Iterable[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Repeat wrong cases near their bound with three other seeds: case -> one error each."""
    near = [
        case for case, status, text in answers if status == "wrong" and ops_checks.near_bound(text)
    ]
    found: dict[str, list[str]] = {case: [] for case in near}
    for seed in SEEDS if near else ():
        rows, _, error = ask(job, piece, f"{piece['key']}-seed{seed}", near, seed)
        texts = {case: text if status == "wrong" else "" for case, status, text in rows}
        for case in near:
            found[case].append(texts.get(case, error or "not answered"))
    return found


def ask(
    job: Job, piece: Job, name: str, cases: Sequence[str], seed: int
) -> tuple[list[tuple[str, str, str]], Job, str | None]:
    """Test some cases in one process: (case, right or wrong or unsupported, error)."""
    words = ["test", "-b", job["backend"], "-o", ",".join(cases)]
    limit = job["expected"]["limit"] if piece["narrowed"] else None
    output, lines, error = call(job, name, words, seed, limit)
    return rows_of(output), lines, error


def rows_of(output: str) -> list[tuple[str, str, str]]:
    """The results in the output of the test. An error may be on the line before its case."""
    found, before = [], ""
    for line in COLOR.sub("", output).splitlines():
        row = ROW.match(line)
        if row is None:
            before = line.strip()
            continue
        kind = {"OK": "right", "FAIL": "wrong"}.get(row["status"], "unsupported")
        text = (row["error"].strip() or before)[:200] if kind == "wrong" else ""
        found.append((row["case"], kind, text))
        before = ""
    return found


def call(
    job: Job, name: str, words: Sequence[str], seed: int = 1, limit: float | None = None
) -> tuple[str, Job, str | None]:
    """Run the test in a process. Returns its output, the values of its JSON lines, and an error.

    The test ends with 1 if a case is wrong, which is not an error.
    """
    path = Path(job["folder"]) / f"{name}.json"
    paths = {"library": job["library"], "reference": job.get("reference")}
    path.write_text(json.dumps({"work": "ops", **paths, "words": list(words)}), encoding="utf-8")
    environment = {
        **spawn.NATIVE_ONLY,
        "CUDA_CACHE_PATH": str(Path(job["folder"]) / "jit-cache"),
        "CUDA_VISIBLE_DEVICES": job["visible"],
        "OMP_WAIT_POLICY": "PASSIVE",  # several processes share the cores
        "BLACKWHEEL_SEED": str(seed),
        **({"BLACKWHEEL_LIMIT": str(limit)} if limit is not None else {}),
    }
    limits = job.get("timeout", TIMEOUT), job.get("still", STILL)
    parts, error = spawn.spawn(sys.executable, path, environment, *limits)
    output = path.with_suffix(".out").read_bytes().decode("utf-8", "replace")
    lines = spawn.merged(parts)
    if error is None and lines.get("ended") not in (0, 1):
        error = f"the test ended with {lines.get('ended')}"
    return output, lines, error


def child(job: Job) -> None:
    """In the child: import the wheel, call the test, and print the libraries that were used.

    GGML_BACKEND_PATH is set after the import: otherwise the wheel's loader would register the
    reference too, and the test runs every device of that name.
    """
    import llama
    import llama_cpp

    llama_cpp.llama_backend_init()  # some wheels load ggml's CUDA module only here
    if job["reference"]:
        os.environ["GGML_BACKEND_PATH"] = job["reference"]
    words = [b"test-backend-ops", *(word.encode() for word in job["words"])]
    test = ctypes.CDLL(job["library"]).blackwheel_test
    ended = test(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
    site = Path(llama_cpp.__file__).resolve().parents[1]
    loaded = [Path(path) for path in llama.loaded_libraries() if "ggml" in Path(path).name]
    # For libraries of the wheel, the path in the wheel, because a release contains the report.
    libraries = [
        path.relative_to(site).as_posix() if path.is_relative_to(site) else str(path)
        for path in loaded
    ]
    print("\n@" + json.dumps({"ended": ended, "libraries": libraries}), flush=True)
    os._exit(0)  # a failure of a library at exit does not concern the operators


def summary(listing: Job, answers: Iterable[tuple[Job, Job]]) -> Job:
    """The summary of all slices: numbers per operator, every wrong case, every problem."""
    operators: dict[str, Job] = {}
    for operator, _, count in listing["cases"]:
        operators.setdefault(operator, _none())["listed"] += count
    narrowed: dict[str, Job] = {}
    problems = [f"listing: {listing['error']}"] if listing["error"] else []
    wrong: list[Job] = []
    libraries = set(listing["libraries"])
    for piece, found in answers:
        rows = narrowed if piece["narrowed"] else operators
        row = rows.setdefault(piece["operator"], _none())
        for kind in ("right", "wrong", "unsupported"):
            row[kind] += found["counts"].get(kind, 0)
        row["seconds"] = round(row["seconds"] + found["seconds"], 2)
        wrong += found["wrong"]
        libraries |= set(found["libraries"])
        name = piece["key"]
        problems += [f"{name}: {text}" for text in found["problems"]]
        if piece["by_name"]:
            continue
        answered = found["answered"]
        different = [case for case, count in piece["cases"] if answered.get(case, 0) != count]
        if different and not found["problems"]:
            problems.append(f"{name}: {len(different)} cases not answered, {different[0]} first")
    return {
        "operators": operators,
        "narrowed": narrowed,
        "wrong": wrong,
        "problems": problems,
        "libraries": sorted(libraries),
    }


def _none() -> Job:
    return {"listed": 0, "right": 0, "wrong": 0, "unsupported": 0, "seconds": 0.0}
