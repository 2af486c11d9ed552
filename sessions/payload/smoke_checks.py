"""Checks the results of the child processes. Pure; standard library only.

A check is {"id", "status", "summary", "evidence", "remedy"}. It fails if its input is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Job = dict[str, Any]
LEAK_MIB = 32  # 20 loads of a model that leaks lose more
BOUNDS: Job = json.loads(Path(__file__).with_name("bounds.json").read_text(encoding="utf-8"))
EXACT = tuple(BOUNDS["exact"])  # types whose tokens must be those of the reference
REPORT = "open an issue in the repository of blackwheel, with the report file"


def evaluate(job: Job, found: Job) -> list[Job]:
    """Every check, in the order in which they are shown."""
    on_gpu = job["layers"] != 0 or bool(job.get("plant"))
    found = {name: _whole(name, part) for name, part in found.items()}
    checks = [device(job, found["device"], on_gpu)]
    if found["device"]["error"]:
        return checks
    if on_gpu:
        checks += [native(found), libraries(job, found["device"])]
        checks += [offload(found["offload"]), memory(found["offload"])]
    checks += [known_answers(job, found), tokens(found), repeats(found), types(job, found, on_gpu)]
    checks.append(modules(job, found))
    checks += list(api(found["api"]))
    if "real" in found:
        checks.append(real(job, found["real"]))
    return checks


def check(id_: str, problems: list[str], ok: str, fail: str, remedy: str) -> Job:
    """One check, which is ok if there are no problems. Eight problems are shown."""
    if not problems:
        return {"id": id_, "status": "ok", "summary": f"{id_}: {ok}", "evidence": "", "remedy": ""}
    shown = problems[:8] + ([f"… and {len(problems) - 8} more"] if len(problems) > 8 else [])
    summary, evidence = f"{id_}: {fail}", "\n".join(shown)
    return {"id": id_, "status": "fail", "summary": summary, "evidence": evidence, "remedy": remedy}


# The last value that a child prints, by its work.
_LAST = {"device": "import_seconds", "offload": "free_after_last", "api": "embedding"}


def _whole(name: str, part: Any) -> Any:
    """A part; with an error if its child succeeded but did not print everything."""
    if name in _LAST and not part.get("error") and _LAST[name] not in part:
        return {**part, "error": "it ended without an error, but did not return all results"}
    return part


def crash(part: Job) -> list[str]:
    """The error of a child as a list; [] if it succeeded."""
    return [part["error"]] if part.get("error") else []


def device(job: Job, part: Job, on_gpu: bool) -> Job:
    """The wheel is imported, has the right version, and sees a GPU of its architecture."""
    problems = crash(part)
    if not problems and on_gpu:
        seen = part.get("devices", [])
        if not part.get("offload"):
            problems.append(
                "llama.cpp reports that it supports no GPU: this is a wheel for the CPU only"
            )
        if not seen:
            problems.append("CUDA finds no device")
        for name, capability in seen:
            if capability not in job["capabilities"]:
                wanted = " or ".join(job["capabilities"])
                problems.append(
                    f"{name} has compute capability {capability}; the wheel is for {wanted}"
                )
    if not problems and part["version"] != job["version"].split("+")[0]:
        problems.append(f"llama_cpp is {part['version']}, and the wheel is {job['version']}")
    where = (
        ", ".join(f"{name} ({cc})" for name, cc in part.get("devices", [])) if on_gpu else "the CPU"
    )
    return check(
        "device",
        problems,
        f"llama_cpp {part.get('version')} runs on {where}",
        "the wheel does not start on this device",
        "see the lines above; nox -s verify shows which GPU and system the wheel is for",
    )


def native(found: Job) -> Job:
    """The driver compiled no kernel: it was forbidden, and its cache is empty."""
    problems = (
        [f"{found['jit_files']} files in the driver's compile cache"] if found["jit_files"] else []
    )
    if not found["device"].get("devices"):
        problems.append("no GPU was used")
    problems += [
        f"{name}: {why}"
        for name in ("offload", "api", "times")
        for why in crash(found[name])
        if re.search(r"PTX|kernel image|JIT|not compiled with any CUDA arch|no device code", why)
    ]
    return check(
        "native-sass",
        problems,
        "ran with CUDA_DISABLE_PTX_JIT=1; the driver compiled nothing",
        "the GPU's machine code is not in the wheel",
        "build for this GPU: nox -s wheel -- --target auto",
    )


def libraries(job: Job, part: Job) -> Job:
    """Each CUDA library is loaded once: the runtime from a known place, others from the wheel."""
    places = [job["venv"], *job.get("runtime_places", [])]
    named: dict[str, list[str]] = {}
    for path in part["libraries"]:
        named.setdefault(re.sub(r"[\d.]+$", "", Path(path).name), []).append(path)
    problems = [f"{len(p)} copies: {', '.join(p)}" for p in named.values() if len(p) > 1]
    for path in part["libraries"]:
        runtime = re.search(r"cudart|cublas", Path(path).name, re.IGNORECASE)
        driver = re.match(r"(lib)?(cuda\.so|nvcuda|nvidia)", Path(path).name)
        ours = re.search(r"ggml|llama|mtmd", Path(path).name)
        if ours and not _within(path, [part["package"]]):
            problems.append(f"{path}: it does not belong to this wheel")
        elif runtime and not driver and not _within(path, places):
            problems.append(f"{path}: not where this wheel's runtime should be")
    for name in ("cudart", "cublas"):
        if not any(re.search(name, Path(p).name, re.IGNORECASE) for p in part["libraries"]):
            problems.append(f"{name}: not loaded")
    how = sorted({via for _, via in part["runtime"].values()})
    return check(
        "libraries",
        problems,
        f"{len(part['libraries'])} from the wheel, the driver and the runtime ({', '.join(how)})",
        "a library was loaded from an unexpected place, or is missing",
        "unset CUDA_PATH and LD_LIBRARY_PATH, then run the same command again",
    )


def _within(path: str, places: list[str]) -> bool:
    return any(Path(path).resolve().is_relative_to(Path(place).resolve()) for place in places)


def offload(part: Job) -> Job:
    """All layers are on the device, according to the log, the buffers and the memory in use."""
    problems = crash(part)
    if not problems:
        layers, total = part["offloaded"] or (0, 0)
        if not layers or layers != total:
            problems.append(f"{layers} of {total or 'unknown'} layers are on the device")
        for kind in ("model", "KV"):
            if not any(re.match(rf"CUDA\d+ {kind}", name) for name in part["buffers"]):
                problems.append(f"no {kind} buffer on the device: {part['buffers']}")
        if part["grew"] < part["weights"] // 2:
            problems.append(
                f"device memory grew by {part['grew']} bytes for {part['weights']} of weights"
            )
    layers, total = part.get("offloaded") or (0, 0)
    grew = part.get("grew", 0) / 2**20
    return check(
        "full-offload",
        problems,
        f"{layers}/{total} layers, buffers on CUDA0, device memory grew by {grew:.0f} MiB",
        "not everything is on the GPU",
        "see that this is a CUDA wheel (nox -s verify) and that nvidia-smi lists the GPU",
    )


def memory(part: Job) -> Job:
    """A model's memory is freed after each load."""
    problems = crash(part)
    lost = 0.0
    if not problems:
        lost = (part["free_after_first"] - part["free_after_last"]) / 2**20
        if lost > LEAK_MIB:
            problems.append(f"{lost:.0f} MiB less are free after {part['loads']} loads")
    return check(
        "memory",
        problems,
        f"{part.get('loads')} loads and unloads, {max(lost, 0):.0f} MiB of GPU memory lost",
        "GPU memory is not freed",
        "see that nothing else uses the GPU, then run it again",
    )


def results(found: Job) -> Iterator[Job]:
    """All cases of all types."""
    for part in found["answers"].values():
        yield from part["results"]


def bound(job: Job, case: Job) -> float:
    """The largest NMSE a case may have."""
    native = BOUNDS["native_fp4"] if job.get("native_fp4") else {}
    base: float = native.get(case["type"], BOUNDS["type"][case["type"]])
    extra: float = BOUNDS["kv"][case["kv"]]
    return base + extra


def cases(job: Job, found: Job) -> list[Job]:
    """All cases with their bounds, for the report."""
    if "answers" not in found:
        return []
    return [
        {**case, "bound": bound(job, case)} if "nmse" in case else case for case in results(found)
    ]


def _name(case: Job) -> str:
    if "batch" not in case:
        return str(case["type"])
    flash = "flash" if case["flash"] else "plain"
    return f"{case['type']}, batch {case['batch']}, {flash} attention, KV {case['kv']}"


def _wrong(job: Job, case: Job) -> str:
    """What is wrong with a case; "" if it is within its bound."""
    if "error" in case:
        return str(case["error"])
    largest = bound(job, case)
    if case["finite"] and case["nmse"] <= largest:
        return ""
    return f"NMSE {case['nmse']:.2e}, allowed {largest:.0e}"


def known_answers(job: Job, found: Job) -> Job:
    """The logits of each case are close to the float64 reference."""
    problems, worst, count = [], (0.0, ""), 0
    for case in results(found):
        count += 1
        if why := _wrong(job, case):
            problems.append(f"{_name(case)}: {why}")
        else:
            worst = max(worst, (case["nmse"] / bound(job, case), _name(case)))
    for name, part in found["answers"].items():
        if not part.get("unknown") and len(part["results"]) < job["cases"]:
            problems.append(f"{name}: {len(part['results'])} of {job['cases']} cases were computed")
    if not count:
        problems.append("no case was computed")
    kinds = len({case["type"] for case in results(found)})
    return check(
        "known-answers",
        problems,
        f"{count} cases of {kinds} types within their bounds "
        f"(worst: {worst[0]:.0%} of its bound, {worst[1]})",
        f"wrong or missing: {len(problems)} of {count} cases",
        "do not use this wheel on this machine; " + REPORT,
    )


def modules(job: Job, found: Job) -> Job:
    """Each CPU module of the wheel that can run here computes the known answers."""
    scores = found["device"].get("modules")
    ran = found.get("modules", {})
    problems = []
    for name, parts in ran.items():
        for part in parts:
            what = f"{name}, {part['type']}"
            problems += [f"{what}: {why}" for why in crash(part)]
            if not part.get("error") and part.get("chosen") != name:
                problems.append(f"{what}: {part.get('chosen')} was used")
            for case in part["results"]:
                if why := _wrong(job, case):
                    batch = f", batch {case['batch']}" if "batch" in case else ""
                    problems.append(f"{what}{batch}: {why}")
            if not part["results"] and not part.get("error"):
                problems.append(f"{what}: no case was computed")
    can = [name for name in scores or {} if scores[name]]
    problems += [f"{name}: not tested" for name in sorted(can) if name not in ran]
    if scores is not None:
        if not can:
            problems.append("no module can run on this CPU")
        elif scores[found["device"]["chosen"]] < max(scores.values()):
            problems.append(
                f"{found['device']['chosen']} is loaded, although another one suits better"
            )
    cannot = sorted(set(scores or {}) - set(can))
    aside = f"; not tested, this CPU cannot run them: {', '.join(cannot)}" if cannot else ""
    return check(
        "cpu-modules",
        problems,
        f"right results from {', '.join(sorted(can))}; {found['device'].get('chosen')} "
        f"is loaded here{aside}"
        if scores is not None
        else "this wheel has one library for the CPU",
        "the wheel's code for the CPU is wrong",
        "do not use this wheel on this CPU; " + REPORT,
    )


def tokens(found: Job) -> Job:
    """For exact types, the best token is the reference's, wherever it is clearly the best."""
    problems, compared = [], 0
    for case in results(found):
        if case["type"] in EXACT and case.get("kv") == "f16" and "nmse" in case:
            compared += case["tokens"]
            if case["equal"] != case["tokens"]:
                problems.append(f"{_name(case)}: {case['equal']} of {case['tokens']}")
    if not compared:
        problems.append("no token was compared")
    return check(
        "greedy-tokens",
        problems,
        f"{compared} of {compared} are those of the reference ({', '.join(EXACT)})",
        "tokens differ from those of the reference",
        "do not use this wheel on this machine; " + REPORT,
    )


def repeats(found: Job) -> Job:
    """The same evaluation gives the same bits."""
    done = [case for case in results(found) if "repeats" in case]
    problems = [_name(case) for case in done if not case["repeats"]]
    if not done:
        problems.append("nothing was computed twice")
    return check(
        "repeatable",
        problems,
        "the same evaluation gave the same bits",
        "the same evaluation gave different bits",
        "try another GPU: one whose results differ each time is faulty",
    )


def types(job: Job, found: Job, on_gpu: bool) -> Job:
    """Every GGML type that this release should know was tested."""
    unknown = [name for name, part in found["answers"].items() if part.get("unknown")]
    tried = sorted({case["type"] for case in results(found)})
    problems = [f"{name}: not known to the wheel" for name in unknown if name in job["needed"]]
    problems += [f"{name}: not tested" for name in job["needed"] if name not in [*tried, *unknown]]
    aside = f"; this release does not know {', '.join(unknown)}" if unknown else ""
    if on_gpu:
        at_home = [name for name in tried if on_host(found["answers"][name])]
        known = BOUNDS["host"]
        problems += [f"{n}: its weights stay on the CPU" for n in at_home if n not in known]
        if at_home and not problems:
            aside += f"; {', '.join(at_home)} on the CPU, upstream has no CUDA kernel for them"
    return check(
        "types",
        problems,
        f"{len(tried)} quantizations tested{aside}",
        "a quantization is missing, or not on the GPU",
        "build the wheel again with --fresh: its llama.cpp is older than its version says",
    )


def on_host(part: Job) -> bool:
    """Whether more of a model than its token embedding (1 MiB) is in host memory."""
    buffers = part.get("buffers") or {}
    host = [float(size) for name, size in buffers.items() if re.match(r"CPU\S* model", name)]
    return sum(host) > 1.5


def api(part: Job) -> Iterator[Job]:
    """The package's own interface."""
    remedy = "do not use this wheel on this machine; " + REPORT
    errors = crash(part)

    def one(id_: str, holds: bool, ok: str, fail: str) -> Job:
        return check(id_, errors or ([] if holds else [fail]), ok, "the result is wrong", remedy)

    answer = part.get("chat")
    allowed = f"a chat answered {answer!r}, as the grammar allows"
    yield one("grammar", answer in ("yes", "no"), allowed, f"{answer!r}")
    error = part.get("embedding", 1.0)
    yield one(
        "embeddings", error <= 1e-4, f"NMSE {error:.0e} against the reference", f"NMSE {error:.2e}"
    )
    one_, other, wanted = part.get("one"), part.get("other"), part.get("wanted")
    yield one(
        "state",
        bool(one_) and one_ == other == wanted,
        f"{len(one_ or [])} greedy tokens are those of the reference, also after saving and "
        "loading",
        f"{one_}, after loading {other}, reference {wanted}",
    )
    text, back = part.get("text"), part.get("back")
    yield one(
        "vocabulary",
        bool(text) and text == back,
        "text to tokens and back",
        f"{text!r} became {back!r}",
    )


def real(job: Job, part: Job) -> Job:
    """A real model answers questions about facts."""
    problems = crash(part)
    answers = part.get("answers", [])
    for answer in answers:
        if answer["fact"].lower() not in answer["answer"].lower():
            problems.append(
                f"{answer['question']} … {answer['answer']!r}; expected: {answer['fact']}"
            )
    if len(answers) < max(1, len(job["questions"])) and not problems:
        problems.append(f"{len(answers)} of {len(job['questions'])} questions were answered")
    return check(
        "real-model",
        problems,
        f"{len(answers)} of {len(answers)} facts answered",
        "the model's answers are wrong",
        "see whether the model knows the answers: run it on the CPU with --device cpu",
    )
