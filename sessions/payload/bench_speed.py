"""Measures import, load, first token and speed in a child process of a benchmark.

As in upstream's llama-bench: a prompt of 512 tokens in one batch, 128 tokens one by one, random
tokens, no sampling, and one run before the first that is recorded.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
FIRST, PROMPT, GENERATED = 32, 512, 128  # tokens
REPEATS, SECONDS = 3, 0.5  # the least number of repetitions of each speed, and their least time
LARGE_GENERATED, LARGE_REPEATS = 32, 1  # for the larger model; a prompt takes seconds on two cores
SEED = 2026


def measure(job: Job, say: Callable[..., None]) -> None:
    """Print times in seconds and speeds in tokens per second."""
    start = time.monotonic()
    import llama_cpp

    imported = time.monotonic() - start
    import llama

    settings: Job = {"flash": True, "kv": "f16", "threads": job["threads"], "length": 1024}
    start = time.monotonic()
    llama.start()
    with (
        llama.model(Path(job["model"]), job["layers"]) as loaded,
        llama.context(loaded, batch=PROMPT, **settings) as context,
    ):
        load = time.monotonic() - start
        known = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(loaded))
        draw = random.Random(SEED)
        tokens = [draw.randrange(known) for _ in range(PROMPT)]
        start = time.monotonic()
        llama.decode(context, tokens[:FIRST])
        first = time.monotonic() - start
        say(
            version=llama_cpp.__version__,
            python=platform.python_version(),
            devices=llama.LOG.devices(),
            offloaded=llama.LOG.offloaded(),
            import_seconds=imported,
            load_seconds=load,
            first_token_seconds=first,
        )
        if not job["speeds"]:
            return

        generated, repeats = GENERATED, REPEATS
        if job["large"]:
            generated, repeats = LARGE_GENERATED, LARGE_REPEATS

        def generate() -> None:
            for token in tokens[:generated]:
                llama.decode(context, [token])

        def forget() -> None:
            llama.forget(context)

        prompts = speeds(lambda: llama.decode(context, tokens), PROMPT, forget, repeats)
        generations = speeds(generate, generated, forget, repeats)
    say(
        prompt_per_second=statistics.median(prompts),
        generation_per_second=statistics.median(generations),
        repeats=[len(prompts), len(generations)],
    )


def speeds(
    work: Callable[[], None], tokens: int, before: Callable[[], None], repeats: int = REPEATS
) -> list[float]:
    """Tokens per second of each repetition except the first; ``before`` is not measured."""
    found: list[float] = []
    began = None
    while began is None or len(found) < repeats or time.monotonic() - began < SECONDS:
        before()
        start = time.monotonic()
        work()
        if began is None:
            began = time.monotonic()
            continue
        found.append(tokens / (time.monotonic() - start))
    return found
