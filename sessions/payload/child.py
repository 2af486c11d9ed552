"""What one child process does: load the wheel, test one thing, say so in JSON lines.

A crash, an abort or a hang here is a finding of the parent's, not the end of the run.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Job = dict[str, Any]

# What is computed of every type; whoever reads a report asks for each of these cases.
_WHAT: Job = json.loads(Path(__file__).with_name("bounds.json").read_text(encoding="utf-8"))
LENGTHS: dict[int, int] = {int(batch): length for batch, length in _WHAT["tokens"].items()}
ATTENTION: list[tuple[bool, str]] = [(flash, kv) for flash, kv in _WHAT["attention"]]
CASES: list[Job] = [
    {"batch": batch, "flash": flash, "kv": kv}
    for batch, (flash, kv) in itertools.product(LENGTHS, ATTENTION)
]
GREEDY = 12  # tokens to follow from a prompt of this seed: each is 0.09 ahead of the next best
GREEDY_SEED = 8
MARGIN = 0.05  # how far the best logit must be ahead for its token to be compared


def say(**line: Any) -> None:
    """One line for the parent."""
    print("@" + json.dumps(line), flush=True)


def answers(job: Job) -> None:
    """Logits of every case of one GGML type against the oracle."""
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
            if number >= job.get("last", len(CASES)):
                return

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
            judged = int(clear[:length].sum())
            equal = (found.argmax(axis=1) == wanted[:length].argmax(axis=1))[clear[:length]]
            compared = {"repeats": _same(found, again)} if twice else {}
            say(
                result={
                    **shown,
                    **compared,
                    "nmse": tiny_reference.nmse(found, wanted[:length]),
                    "finite": bool(np.isfinite(found).all()),
                    "tokens": judged,
                    "equal": int(equal.sum()),
                }
            )


def cpu_module() -> str | None:
    """The wheel's module for the CPU that this process uses; None where it has but one library."""
    try:
        from llama_cpp import _backends
    except ImportError:
        return None
    chosen: str | None = _backends.chosen
    return chosen


def cpu_modules() -> dict[str, int] | None:
    """How well each of the wheel's modules suits this CPU: 0 where it cannot run. None as above."""
    if cpu_module() is None:
        return None
    from llama_cpp import _backends

    return dict(_backends.scores())


def _same(one: Any, other: Any) -> bool:
    import numpy as np

    return bool(np.array_equal(one, other, equal_nan=True))


def flip(path: Path, name: str = "blk.1.ffn_down.weight") -> None:
    """Damage the weights of one tensor of a model file: the check that this is noticed."""
    import gguf

    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset) + int(tensor.n_bytes) // 4)
        half = file.read(int(tensor.n_bytes) // 2)
        file.seek(-len(half), 1)
        file.write(bytes(byte ^ 0x55 for byte in half))


def device(job: Job) -> None:  # noqa: ARG001 (every step is called with its job)
    """What the wheel sees and loads: its libraries, their places, the device's name."""
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
    """Layers, buffers and device memory of one model; memory again after many loads."""
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
            if number == 1:  # the first load also pays for CUDA itself
                say(
                    offloaded=llama.LOG.offloaded(),
                    buffers=llama.LOG.buffers(),
                    grew=before - during,
                    weights=weights,
                )
        frees.append(llama.memory()[0] if on_card else 0)
    say(free_after_first=frees[1], free_after_last=frees[-1], loads=job["loads"])


def api(job: Job) -> None:
    """The package's own interface: grammar, embeddings, state, vocabulary."""
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
    """Load, first token, prompt and generation speed on the tiny model; medians."""
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
    """Greedy answers of a real model to factual prompts."""
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
        said = llm.create_completion(question, max_tokens=12, temperature=0.0)
        text = said["choices"][0]["text"]
        say(question=question, fact=fact, answer=text, seconds=time.monotonic() - start)


def feature(job: Job) -> None:
    """What a wheel does beside the quantizations of a text model."""
    import features

    features.WORK[job["type"]](job)


def model(job: Job) -> None:
    """A model that wheels are measured with."""
    import tiny_llama

    shape = tiny_llama.LARGE if job["large"] else tiny_llama.TINY
    say(sha256=tiny_llama.write(Path(job["model"]), job["type"], shape=shape))


def speed(job: Job) -> None:
    """What a benchmark takes from one process."""
    import bench_speed as measured

    measured.measure(job, say)
    say(cpu_module=cpu_module())


def operators(job: Job) -> None:
    """Upstream's operator test on the wheel's libraries (ops.py)."""
    import ops

    ops.child(job)


def family(job: Job) -> None:
    """One model family in one GGML type, against transformers."""
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


def lines(output: str) -> Iterator[Job]:
    """What a child said, from all that it printed."""
    for line in output.splitlines():
        if line.startswith("@{"):
            try:
                yield json.loads(line[1:])
            except ValueError:
                return  # cut off in the middle of a line
