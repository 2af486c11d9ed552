"""The work of a child process: it loads the wheel, tests one thing and prints JSON lines.

If it crashes, aborts or hangs, the parent process reports that and continues.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]

# The cases that are computed for each type; the reader of a report requires each of them.
_WHAT: Job = json.loads(Path(__file__).with_name("bounds.json").read_text(encoding="utf-8"))
LENGTHS: dict[int, int] = {int(batch): length for batch, length in _WHAT["tokens"].items()}
ATTENTION: list[tuple[bool, str]] = [(flash, kv) for flash, kv in _WHAT["attention"]]
CASES: list[Job] = [
    {"batch": batch, "flash": flash, "kv": kv}
    for batch, (flash, kv) in itertools.product(LENGTHS, ATTENTION)
]
GREEDY = 12  # tokens after a prompt of this seed; the best logit is always 0.09 ahead of the next
GREEDY_SEED = 8
MARGIN = 0.05  # a token is compared if its logit is this far ahead of the next best


def say(**line: Any) -> None:
    """Print a line for the parent process."""
    print("@" + json.dumps(line), flush=True)


def answers(job: Job) -> None:
    """Compare the logits of every case of one GGML type with the reference."""
    import llama
    import numpy as np
    import tiny_llama
    import tiny_reference
    from gguf import GGMLQuantizationType

    llama.start()
    name = job["type"]
    if not llama.knows(int(GGMLQuantizationType[name])):
        say(unknown=name)
        return
    path = Path(job["folder"]) / f"{name}{job.get('cpu', '')}.gguf"
    made = tiny_llama.make(path, name)
    weights = made.weights
    if job.get("oracle_seed"):
        other = path.with_suffix(".other.gguf")
        weights = tiny_llama.make(other, name, job["oracle_seed"]).weights
    if job.get("flip"):
        flip(path)
    tokens = tiny_llama.prompt(max(LENGTHS.values()))
    wanted, _ = tiny_reference.forward(weights, tokens)
    best = np.sort(wanted, axis=1)
    clear = best[:, -1] - best[:, -2] >= MARGIN
    say(model=name, sha256=made.sha256, chosen=cpu_module())
    with llama.model(path, job["layers"]) as loaded:
        say(type=name, offloaded=llama.LOG.offloaded(), buffers=llama.LOG.buffers())
        for number, case in enumerate(CASES):
            if number < job.get("first", 0) or number not in job.get("only", [number]):
                continue
            say(case=number)
            length = LENGTHS[case["batch"]]
            shown = {**case, "type": name}

            def run(case: Job = case, length: int = length) -> Any:
                with llama.context(
                    loaded, **case, threads=job["threads"], length=max(LENGTHS.values())
                ) as context:
                    return llama.evaluate(context, tokens[:length], case["batch"], tiny_llama.VOCAB)

            try:
                found = run()
                twice = [case["flash"], case["kv"]] == _WHAT["repeated"]
                again = run() if twice else found
            except llama.Refused as refusal:
                say(result={**shown, "error": str(refusal)})
                continue
            equal = (found.argmax(axis=1) == wanted[:length].argmax(axis=1))[clear[:length]]
            same = bool(np.array_equal(found, again, equal_nan=True))
            say(
                result={
                    **shown,
                    **({"repeats": same} if twice else {}),
                    "nmse": tiny_reference.nmse(found, wanted[:length]),
                    "finite": bool(np.isfinite(found).all()),
                    "tokens": int(clear[:length].sum()),
                    "equal": int(equal.sum()),
                }
            )


def cpu_module() -> str | None:
    """The CPU module of the wheel that this process uses; None if it has only one CPU library."""
    try:
        from llama_cpp import _backends
    except ImportError:
        return None
    chosen: str | None = _backends.chosen
    return chosen


def cpu_modules() -> dict[str, int] | None:
    """A score of each CPU module for this CPU, 0 if it cannot run; None as for ``cpu_module``."""
    if cpu_module() is None:
        return None
    from llama_cpp import _backends

    return dict(_backends.scores())


def flip(path: Path, name: str = "blk.1.ffn_down.weight") -> None:
    """Damage the weights of one tensor in a model file, to test that a check notices it."""
    import gguf

    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset) + int(tensor.n_bytes) // 4)
        half = file.read(int(tensor.n_bytes) // 2)
        file.seek(-len(half), 1)
        file.write(bytes(byte ^ 0x55 for byte in half))


def device(job: Job) -> None:  # noqa: ARG001 (every work is called with its job)
    """Print what the wheel loads and sees: its libraries and their paths, and the devices."""
    start = time.monotonic()
    import llama_cpp

    imported = time.monotonic() - start
    import llama

    llama.start()
    offload = bool(llama_cpp.llama_supports_gpu_offload())
    try:
        from llama_cpp import _cuda_runtime

        found = dict(_cuda_runtime.loaded)
    except ImportError:
        found = {}
    say(
        version=llama_cpp.__version__,
        package=str(Path(llama_cpp.__file__).parent),
        offload=offload,
        runtime=found,
        modules=cpu_modules(),
        chosen=cpu_module(),
        libraries=llama.loaded_libraries(),
        devices=llama.LOG.devices(),
        system=llama_cpp.llama_print_system_info().decode(),
        import_seconds=imported,
    )


def offload(job: Job) -> None:
    """Print layers, buffers and device memory of one model, and the memory after many loads."""
    import llama
    import tiny_llama

    llama.start()
    path = Path(job["folder"]) / "offload.gguf"
    tiny_llama.make(path, "F16")
    on_card = job["layers"] > 0
    weights = path.stat().st_size
    frees = []
    for number in range(job["loads"] + 1):
        llama.LOG.clear()
        before = llama.memory()[0] if on_card else 0
        with (
            llama.model(path, job["layers"]) as loaded,
            llama.context(
                loaded, batch=32, flash=True, kv="f16", threads=job["threads"], length=512
            ) as context,
        ):
            llama.evaluate(context, tiny_llama.prompt(32), 32, tiny_llama.VOCAB)
            during = llama.memory()[0] if on_card else 0
            if number == 1:  # the first load also takes memory for CUDA itself
                say(
                    offloaded=llama.LOG.offloaded(),
                    buffers=llama.LOG.buffers(),
                    grew=before - during,
                    weights=weights,
                )
        frees.append(llama.memory()[0] if on_card else 0)
    say(free_after_first=frees[1], free_after_last=frees[-1], loads=job["loads"])


def api(job: Job) -> None:
    """Test the package's Python interface: grammar, embeddings, state, vocabulary."""
    import numpy as np
    import tiny_llama
    import tiny_reference
    from llama_cpp import Llama, LlamaGrammar

    path = Path(job["folder"]) / "api.gguf"
    made = tiny_llama.make(path, "F16")
    common = {
        "model_path": str(path),
        "n_gpu_layers": job["layers"],
        "n_threads": job["threads"],
        "verbose": False,
        "n_ctx": 512,
        "seed": 1,
    }
    llm = Llama(**common)
    grammar = LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
    chat = llm.create_chat_completion(
        [{"role": "user", "content": "Is it proven?"}],
        grammar=grammar,
        temperature=0.0,
        max_tokens=8,
    )
    say(chat=chat["choices"][0]["message"]["content"])
    text = "Hola, se\u00f1or: \u6f22\u5b57 and \U0001f600 in 2 lines\nof text."
    ids = llm.tokenize(text.encode(), add_bos=False)
    say(text=text, back=llm.detokenize(ids).decode("utf-8", "replace").lstrip(" "), ids=len(ids))
    tokens = tiny_llama.prompt(16, GREEDY_SEED)
    wanted: list[int] = []
    for _ in range(GREEDY):
        logits, _ = tiny_reference.forward(made.weights, [*tokens, *wanted])
        wanted.append(int(logits[-1].argmax()))
    other = Llama(**common)
    other.eval(tokens[:-1])
    state = other.save_state()

    def follow() -> list[int]:
        other.eval(tokens[-1:])  # newer releases keep no logits in a state
        found = []
        for _ in range(GREEDY):
            found.append(int(other.sample(temp=0.0)))
            other.eval(found[-1:])
        return found

    one = follow()
    other.load_state(state)
    say(wanted=wanted, one=one, other=follow())
    both = {"embedding": True, "embeddings": True}  # the second in JamePeng's fork
    embedder = Llama(**common, **both, pooling_type=1)  # 1: mean over the tokens
    found = np.asarray(embedder.embed(text, normalize=False))
    ids = embedder.tokenize(text.encode())
    _, hidden = tiny_reference.forward(made.weights, ids)
    say(embedding=tiny_reference.nmse(found, hidden.mean(axis=0)), width=len(found))


def times(job: Job) -> None:
    """Measure load, first token, prompt and generation of the tiny model; speeds are medians."""
    import statistics

    import llama
    import tiny_llama

    llama.start()
    path = Path(job["folder"]) / "times.gguf"
    tiny_llama.make(path, "Q4_K")
    start = time.monotonic()
    with llama.model(path, job["layers"]) as loaded:
        load = time.monotonic() - start
        tokens = tiny_llama.prompt(512)
        settings: Job = {"flash": True, "kv": "f16", "threads": job["threads"], "length": 640}
        with llama.context(loaded, batch=512, **settings) as context:
            start = time.monotonic()
            llama.evaluate(context, tokens[:1], 1, tiny_llama.VOCAB)
            first = time.monotonic() - start
        prompts, generations = [], []
        for _ in range(5):
            with llama.context(loaded, batch=512, **settings) as context:
                start = time.monotonic()
                llama.evaluate(context, tokens, 512, tiny_llama.VOCAB)
                prompts.append(len(tokens) / (time.monotonic() - start))
            with llama.context(loaded, batch=1, **settings) as context:
                start = time.monotonic()
                llama.evaluate(context, tokens[:128], 1, tiny_llama.VOCAB)
                generations.append(128 / (time.monotonic() - start))
    say(
        load_seconds=load,
        first_token_seconds=first,
        prompt_per_second=statistics.median(prompts),
        generation_per_second=statistics.median(generations),
    )


def real(job: Job) -> None:
    """Print greedy answers of a real model to questions about facts."""
    import llama
    from llama_cpp import Llama

    llama.start()
    llm = Llama(
        model_path=job["model"],
        n_gpu_layers=job["layers"],
        n_threads=job["threads"],
        n_ctx=512,
        verbose=True,
    )
    say(offloaded=llama.LOG.offloaded(), buffers=llama.LOG.buffers())
    for question, fact in job["questions"]:
        start = time.monotonic()
        completion = llm.create_completion(question, max_tokens=12, temperature=0.0)
        text = completion["choices"][0]["text"]
        say(question=question, fact=fact, answer=text, seconds=time.monotonic() - start)


def feature(job: Job) -> None:
    """Test a feature (features.py)."""
    import features

    features.WORK[job["type"]](job)


def model(job: Job) -> None:
    """Write a model for a benchmark."""
    import tiny_llama

    shape = tiny_llama.LARGE if job["large"] else tiny_llama.TINY
    say(sha256=tiny_llama.write(Path(job["model"]), job["type"], shape=shape))


def speed(job: Job) -> None:
    """Measure for a benchmark (bench_speed.py)."""
    import bench_speed as measured

    measured.measure(job, say)
    say(cpu_module=cpu_module())


def operators(job: Job) -> None:
    """Run upstream's operator test (ops.py)."""
    import ops

    ops.child(job)


def family(job: Job) -> None:
    """Compute one model family in one GGML type (family_answers.py)."""
    import family_answers

    family_answers.run(job, say)


WORK: dict[str, Callable[[Job], None]] = {
    "answers": answers,
    "family": family,
    "device": device,
    "offload": offload,
    "api": api,
    "times": times,
    "real": real,
    "feature": feature,
    "model": model,
    "speed": speed,
    "ops": operators,
}
