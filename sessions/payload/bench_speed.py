"""What one child of a benchmark measures: import, load, first token, and how fast it goes on.

As upstream's llama-bench does: 512 tokens of prompt in one batch, 128 tokens one by one, tokens
drawn at random, nothing sampled, and a run before the first that counts.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Job = dict[str, Any]
FIRST, PROMPT, GENERATED = 32, 512, 128  # tokens
REPEATS, SECONDS = 3, 0.5  # of each speed at least so often, and for so long
LARGE_GENERATED, LARGE_REPEATS = 32, 1  # of the larger model: on two cores a prompt takes seconds
SEED = 2026


def measure(job: Job, say: Callable[..., None]) -> None:
    """Times in seconds, speeds in tokens a second."""
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

        def one_by_one(given: Sequence[int]) -> None:
            for token in given:
                llama.decode(context, [token])

        def forget() -> None:
            llama.forget(context)

        prompts = speeds(lambda: llama.decode(context, tokens), PROMPT, forget, repeats)
        generations = speeds(lambda: one_by_one(tokens[:generated]), generated, forget, repeats)
    say(
        prompt_per_second=statistics.median(prompts),
        generation_per_second=statistics.median(generations),
        repeats=[len(prompts), len(generations)],
    )


def speeds(
    work: Callable[[], None], tokens: int, before: Callable[[], None], repeats: int = REPEATS
) -> list[float]:
    """Tokens a second of each repetition but the first; ``before`` each of them is not timed."""
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
