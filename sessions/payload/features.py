"""Tests the features of a wheel: pictures, embeddings, adapters, partial offload, threads.

Each answer is compared with a float64 reference. The required answers and their bounds are in
features.json.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import child
import llama
import llama_cpp
import numpy as np
import numpy.typing as npt
import tiny_bert
import tiny_llama
import tiny_lora
import tiny_reference
import tiny_vision

Job = dict[str, Any]
Found = npt.NDArray[np.floating]
BATCHES = (1, 32, 512)
TEXT = 0  # enum mtmd_input_chunk_type; its name differs between bindings


def vision(job: Job) -> None:
    """Test the embeddings of a picture, and the logits of a text that contains the picture."""
    from llama_cpp import mtmd_cpp as mtmd

    llama.start()
    folder = Path(job["folder"])
    text = tiny_llama.make(folder / "vision-text.gguf", "F16").weights
    pixels = tiny_vision.picture()
    encode, embeddings = _mtmd(mtmd)
    for kind in ("F32", "F16"):
        path = folder / f"vision-{kind}.gguf"
        wanted = tiny_vision.forward(tiny_vision.make(path, kind), pixels)
        if _damaged(job, "vision"):
            child.flip(path, "v.blk.1.ffn_down.weight")
        with llama.model(folder / "vision-text.gguf", job["layers"]) as loaded:
            params = mtmd.mtmd_context_params_default()
            params.use_gpu, params.n_threads = job["layers"] > 0, job["threads"]
            # On Windows the name is read in the system's code page: no folder with an é in it.
            short = os.path.relpath(path)
            made = mtmd.mtmd_init_from_file(short.encode(), loaded, params)
            if not made:
                raise llama.Refused(f"the projector does not load: {llama.LOG.tail()}")
            with _chunks(mtmd, made, pixels) as chunks:
                image = next(chunk for chunk in chunks if chunk.tokens is None)
                if encode(made, image.pointer):
                    raise llama.Refused(f"the picture is not encoded: {llama.LOG.tail()}")
                shape = (tiny_vision.TOKENS, tiny_llama.EMBD)
                found = np.ctypeslib.as_array(embeddings(made), shape).copy()
                _answer(f"picture, {kind}", found, wanted)
                logits = _read(mtmd, made, loaded, chunks, job)
                _answer(f"text and picture, {kind}", logits, _expected(text, chunks, wanted))
            mtmd.mtmd_free(made)


class _Chunk:
    """A part of a prompt: the tokens of a text, or a picture, which has none."""

    def __init__(self, mtmd: Any, pointer: Any) -> None:
        self.pointer, self.tokens = pointer, None
        if mtmd.mtmd_input_chunk_get_type(pointer) == TEXT:
            count = ctypes.c_size_t()
            ids = mtmd.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(count))
            self.tokens = [int(ids[n]) for n in range(count.value)]


def _mtmd(mtmd: Any) -> tuple[Any, Any]:
    """Two functions of libmtmd that the bindings of 0.3.16 lack."""
    library = mtmd._libmtmd
    encode, embeddings = library.mtmd_encode_chunk, library.mtmd_get_output_embd
    encode.argtypes, encode.restype = [ctypes.c_void_p] * 2, ctypes.c_int32
    embeddings.argtypes = [ctypes.c_void_p]
    embeddings.restype = ctypes.POINTER(ctypes.c_float)
    return encode, embeddings


@contextlib.contextmanager
def _chunks(mtmd: Any, made: Any, pixels: tiny_vision.PICTURE) -> Iterator[list[_Chunk]]:
    """The chunks into which mtmd divides a text with a picture."""
    data = pixels.tobytes()
    space = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
    # Bytes in C; some bindings declare a pointer to numbers, some a text.
    place = ctypes.cast(space, mtmd.mtmd_bitmap_init.argtypes[2])
    bitmap = mtmd.mtmd_bitmap_init(tiny_vision.SIZE, tiny_vision.SIZE, place)
    words = b"see " + mtmd.mtmd_default_marker() + b" what"
    text = mtmd.mtmd_input_text()
    text.text, text.add_special, text.parse_special = words, True, True
    if "text_len" in {name for name, *_ in text._fields_}:  # newer releases
        text.text_len = len(words)
    chunks = mtmd.mtmd_input_chunks_init()
    try:
        pictures = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        code = mtmd.mtmd_tokenize(made, chunks, ctypes.byref(text), pictures, 1)
        if code:
            raise llama.Refused(f"mtmd_tokenize returned {code}: {llama.LOG.tail()}")
        count = mtmd.mtmd_input_chunks_size(chunks)
        yield [_Chunk(mtmd, mtmd.mtmd_input_chunks_get(chunks, n)) for n in range(count)]
    finally:
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)


def _read(mtmd: Any, made: Any, loaded: Any, chunks: Sequence[_Chunk], job: Job) -> Found:
    """Logits of the last token, after all chunks."""
    with llama.context(loaded, batch=256, length=256, **_settings(job)) as context:
        past = ctypes.c_int32(0)
        for chunk in chunks:
            code = mtmd.mtmd_helper_eval_chunk_single(
                made, context, chunk.pointer, past.value, 0, 256, True, ctypes.byref(past)
            )
            if code:
                raise llama.Refused(f"a part of the prompt returned {code}: {llama.LOG.tail()}")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return np.ctypeslib.as_array(logits, (tiny_llama.VOCAB,)).copy()


def _expected(
    text: Any, chunks: Sequence[_Chunk], picture: tiny_reference.Array
) -> tiny_reference.Array:
    """The logits that ``_read`` must return. The tokens of a picture see each other."""
    parts: list[Any] = []
    where = range(0)
    for chunk in chunks:
        if chunk.tokens is None:
            start = sum(len(part) for part in parts)
            where = range(start, start + len(picture))
            parts.append(picture)
        else:
            parts.append(text["token_embd.weight"][chunk.tokens])
    logits, _ = tiny_reference.from_embeddings(
        text, np.concatenate(parts).astype(np.float64), where
    )
    last: tiny_reference.Array = logits[-1]
    return last


def bert(job: Job) -> None:
    """Test the embeddings of two texts of different lengths in one batch, with each pooling."""
    llama.start()
    texts = [tiny_bert.text(62, seed=1), tiny_bert.text(190, seed=2)]
    wanted_ids = [tiny_bert.tokens(words) for words in texts]
    for kind in ("F32", "F16"):
        path = Path(job["folder"]) / f"bert-{kind}.gguf"
        weights = tiny_bert.make(path, kind)
        hidden = [tiny_bert.forward(weights, ids) for ids in wanted_ids]
        if _damaged(job, "text-embeddings"):
            child.flip(path, "blk.1.ffn_down.weight")
        with llama.model(path, job["layers"]) as loaded:
            ids = [llama.tokenize(loaded, words) for words in texts]
            if ids != wanted_ids:
                raise llama.Refused(f"{texts} became the tokens {ids}, not {wanted_ids}")
            for pooling, number in tiny_bert.POOLING.items():
                for flash in (False, True):
                    found = _embed(loaded, ids, flash, number, job["threads"])
                    wanted = [tiny_bert.pooled(h, pooling).reshape(-1) for h in hidden]
                    way = "flash" if flash else "plain"
                    name = f"{kind}, pooling {pooling}, {way} attention"
                    _answer(name, np.concatenate(found), np.concatenate(wanted))


def _embed(
    loaded: Any, texts: Sequence[Sequence[int]], flash: bool, pooling: int, threads: int
) -> list[Found]:
    """The embeddings of texts in one batch, each flattened."""
    more: Job = {"embeddings": True, "pooling_type": pooling, "n_seq_max": len(texts)}
    settings: Job = {"kv": "f16", "threads": threads, "length": tiny_bert.CONTEXT}
    with llama.context(loaded, batch=tiny_bert.CONTEXT, flash=flash, **settings, **more) as context:
        llama.decode_together(context, texts)
        ends = np.cumsum([len(ids) for ids in texts])
        found = []
        for number, ids in enumerate(texts):
            if pooling:
                pointers = [llama_cpp.llama_get_embeddings_seq(context, number)]
            else:
                rows = range(ends[number] - len(ids), ends[number])
                pointers = [llama_cpp.llama_get_embeddings_ith(context, n) for n in rows]
            parts = [np.ctypeslib.as_array(p, (tiny_bert.WIDTH,)).copy() for p in pointers]
            found.append(np.concatenate(parts))
    return found


def lora(job: Job) -> None:
    """Test logits with an adapter at two scales, and that nothing remains after its removal."""
    llama.start()
    path, other = (Path(job["folder"]) / f"lora-{name}.gguf" for name in ("model", "adapter"))
    weights = tiny_llama.make(path, "F16").weights
    pairs = tiny_lora.make(other, weights)
    if _damaged(job, "lora"):
        child.flip(other, "blk.1.ffn_down.weight.lora_b")
    tokens = tiny_llama.prompt(max(BATCHES))
    with llama.model(path, job["layers"]) as loaded:
        adapter = llama_cpp.llama_adapter_lora_init(loaded, str(other).encode())
        if not adapter:
            raise llama.Refused(f"the adapter does not load: {llama.LOG.tail()}")
        plain = _logits(loaded, tokens, 32, job)
        for scale in (1.0, 0.5):
            wanted, _ = tiny_reference.forward(tiny_lora.applied(weights, pairs, scale), tokens)
            for batch in BATCHES:
                start = tokens[: child.LENGTHS[batch]]
                found = _logits(loaded, start, batch, job, (adapter, scale))
                _answer(f"scale {scale}, batch {batch}", found, wanted[: len(start)])
        child.say(unchanged=bool(np.array_equal(plain, _logits(loaded, tokens, 32, job))))


def _settings(job: Job) -> Job:
    return {"flash": True, "kv": "f16", "threads": job["threads"]}


def _logits(
    loaded: Any,
    tokens: Sequence[int],
    batch: int,
    job: Job,
    adapter: tuple[Any, float] | None = None,
) -> Found:
    """Logits of all tokens; with an adapter at this scale."""
    with llama.context(loaded, batch=batch, length=len(tokens), **_settings(job)) as context:
        if adapter:
            llama.set_adapter(context, *adapter)
        found: Found = llama.evaluate(context, tokens, batch, tiny_llama.VOCAB)
        return found


def threads(job: Job) -> None:
    """Test that four threads with two models get the same bits as the first evaluation."""
    llama.start()
    paths = [Path(job["folder"]) / f"threads-{n}.gguf" for n in (1, 2)]
    weights, _ = (tiny_llama.make(path, "Q4_K").weights for path in paths)
    if _damaged(job, "threads"):
        child.flip(paths[1])
    tokens = tiny_llama.prompt(96)
    with llama.model(paths[0], job["layers"]) as one, llama.model(paths[1], job["layers"]) as other:
        first = _logits(one, tokens, 32, job)
        wanted, _ = tiny_reference.forward(weights, tokens)
        _answer("Q4_K, batch 32", first, wanted)
        found: list[bool] = []

        def work(loaded: Any) -> None:
            for _ in range(4):
                found.append(bool(np.array_equal(_logits(loaded, tokens, 32, job), first)))

        started = [threading.Thread(target=work, args=(model,)) for model in (one, other) * 2]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    child.say(evaluations=len(found), same=sum(found))


def part(job: Job) -> None:
    """Test a model with one and two of its three layers on the GPU; the last is its output."""
    _placed(job, "partial-offload", {f"{n} of 3 layers": (n, ()) for n in (1, 2)})


def two(job: Job) -> None:
    """Test a model that is divided between two GPUs.

    Of its two layers and its output, 1:1 puts the output on the second GPU; 1:3 also a layer.
    """
    _placed(job, "two-gpus", {"split 1:1": (999, (1.0, 1.0)), "split 1:3": (999, (1.0, 3.0))})


def tokenizers(job: Job) -> None:
    """Compare the tokens of texts with upstream's, for each of upstream's vocabularies."""
    llama.start()
    for texts in sorted(Path(job["vectors"]).glob("*.gguf.inp")):
        vocabulary = texts.with_suffix("")
        rows = vocabulary.with_name(f"{vocabulary.name}.out").read_text("utf-8").split("\n")
        if _damaged(job, "tokenizers"):
            rows[0] += " 7"
        wrong = []
        parts = texts.read_bytes().decode().split("\n__ggml_vocab_test__\n")
        with llama.model(vocabulary, 0, vocab_only=True) as loaded:
            for text, row in zip(parts, rows):  # the last row is empty
                found = llama.tokenize(loaded, text, special=False)
                if found != [int(number) for number in row.split()]:
                    wrong.append(f"{text[:60]!r} became {found[:12]}, not {row[:60]}")
        child.say(tokenized={"file": vocabulary.name, "texts": len(parts), "wrong": wrong})


def _placed(job: Job, name: str, ways: dict[str, tuple[int, tuple[float, ...]]]) -> None:
    llama.start()
    tokens = tiny_llama.prompt(512)
    places = {}
    for kind in ("F16", "Q4_K"):
        path = Path(job["folder"]) / f"{name}-{kind}.gguf"
        wanted, _ = tiny_reference.forward(tiny_llama.make(path, kind).weights, tokens)
        for way, (layers, split) in ways.items():
            llama.LOG.clear()
            if _damaged(job, name):  # everything on the first GPU
                layers, split = 999, (1.0, 0.0)
            with llama.model(path, layers, split) as loaded:
                for batch in BATCHES:
                    start = tokens[: child.LENGTHS[batch]]
                    found = _logits(loaded, start, batch, job)
                    _answer(f"{kind}, {way}, batch {batch}", found, wanted[: len(start)])
                places[f"{kind}, {way}"] = [llama.LOG.offloaded(), llama.LOG.buffers()]
    child.say(places=places)


def _damaged(job: Job, name: str) -> bool:
    """Whether the job asks for a defect here, to test that it is noticed."""
    return name in job.get("damaged", ())


def _answer(case: str, found: Found, wanted: tiny_reference.Array) -> None:
    child.say(result={"case": case, "nmse": tiny_reference.nmse(found, wanted)})


WORK: dict[str, Callable[[Job], None]] = {
    "vision": vision,
    "text-embeddings": bert,
    "lora": lora,
    "threads": threads,
    "partial-offload": part,
    "two-gpus": two,
    "tokenizers": tokenizers,
}
