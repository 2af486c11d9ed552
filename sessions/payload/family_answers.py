"""One tiny model of a family in one GGML type: the wheel's answers beside those of transformers.

What is compared, and with which bound, is in the job; ``sessions/run/families.py`` makes it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import family_file
import llama
import llama_cpp
import numpy as np
import numpy.typing as npt
import tiny_llama

Job = dict[str, Any]
Say = Callable[..., None]
# Tokens that are evaluated, by batch size. Windows have 64 tokens, so each is longer.
LENGTHS = {1: 96, 32: 160, 512: 512}


def run(job: Job, say: Say) -> None:
    """Say a ``result`` for each way of the job; one with ``error`` where llama.cpp refuses.

    ``plant`` of the job is a defect: [PART, FACTOR] multiplies the F32 tensors whose name contains
    PART; [PART, "swap"] exchanges the first two experts.
    """
    llama.start()
    file = Path(job["file"])
    family = family_file.load(file)
    path = Path(job["folder"]) / f"{family.name}-{job['type']}.gguf"
    planted: list[str] = []
    change = family_file.defect(job["plant"], family, planted) if job.get("plant") else None
    sha256 = family_file.write(path, family, job["type"], change)
    say(sha256=sha256, bytes=path.stat().st_size, planted=planted)
    if sha256 != job["sha256"] and not change:
        return  # not the model whose answers are known
    wanted = family_file.reference(file, job["type"])
    for split, ways in _by_split(job["ways"]):
        llama.LOG.clear()
        try:
            with model(path, job["layers"], split) as loaded:
                buffers = llama.LOG.buffers()
                for way in ways:
                    say(way=way)
                    say(result={**_one(job, loaded, way, wanted, say), "buffers": buffers})
        except llama.Refused as refusal:
            text = str(refusal)
            if "unknown model architecture" in text:
                say(unknown=family.name)
                return
            for way in ways:
                say(result={**way, "error": text[-300:]})
    path.unlink()


def _by_split(ways: list[Job]) -> list[tuple[str, list[Job]]]:
    splits = list(dict.fromkeys(way["split"] for way in ways))
    return [(split, [way for way in ways if way["split"] == split]) for split in splits]


def _one(job: Job, loaded: Any, way: Job, wanted: family_file.Reference, say: Say) -> Job:
    """The answer to one way: NMSE over the compared tokens, and the worst token's."""
    length = LENGTHS[way["batch"]]
    seen: set[str] = set()
    width = tiny_llama.VOCAB if not job["encoder"] else int(llama_cpp.llama_model_n_embd(loaded))
    with context(loaded, way, job, seen) as made:
        found = evaluate(made, tiny_llama.prompt(512)[:length], way["batch"], width, job["encoder"])
    say(operations=sorted(seen))
    here = wanted.rows < length
    return {
        **way,
        **family_file.compared(found[wanted.rows[here]][:, wanted.columns], wanted.values[here]),
    }


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


@contextlib.contextmanager
def model(path: Path, layers: int, split: str) -> Iterator[Any]:
    """A loaded model: all on the GPU (split ""), or part of it on the CPU.

    ``experts``: the experts of the first layer that has some, as --n-cpu-moe of llama.cpp's
    programs does; ``half``: the later half of the layers on the GPU.
    """
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = layers
    kept: Any = None
    if split == "half" and layers:
        params.n_gpu_layers = 2  # the output counts as a layer
    if split == "experts":
        kept = (_Override * 2)(
            _Override(rb"blk\.[01]\.ffn_(up|down|gate)_exps", _host_memory()),
            _Override(None, None),
        )
        params.tensor_buft_overrides = ctypes.cast(
            kept, dict(type(params)._fields_)["tensor_buft_overrides"]
        )
    loaded = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not loaded:
        raise llama.Refused(f"the model does not load: {''.join(llama.LOG.lines)[-1500:]}")
    try:
        yield loaded
    finally:
        llama_cpp.llama_model_free(loaded)


def _host_memory() -> int:
    """The buffer type of the CPU's device, whichever library has the code for the CPU."""
    device_of = llama.library("ggml").ggml_backend_dev_by_type
    device_of.restype, device_of.argtypes = ctypes.c_void_p, [ctypes.c_int]
    buffers_of = llama.library("ggml-base").ggml_backend_dev_buffer_type
    buffers_of.restype, buffers_of.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    found: int = buffers_of(device_of(0))  # GGML_BACKEND_DEVICE_TYPE_CPU
    return found


class _Tensor(ctypes.Structure):
    """The beginning of struct ggml_tensor (ggml.h; the same in 0.3.16 and 0.3.36)."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
    ]


IDLE = ("NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE")  # operations that compute nothing


def watcher(seen: set[str]) -> Any:
    """A callback of ggml's scheduler that notes what is computed first, and where.

    One text per operation: name, type of the first source, buffer. The scheduler asks it before
    each node; the answer "no" leaves the graph as it is computed otherwise.
    """
    base = llama.library("ggml-base")
    for name in ("ggml_op_desc", "ggml_type_name", "ggml_backend_buffer_name"):
        getattr(base, name).restype = ctypes.c_char_p
    base.ggml_op_desc.argtypes = base.ggml_backend_buffer_name.argtypes = [ctypes.c_void_p]
    done: set[int] = set()

    def ask(pointer: Any, before: bool, _data: Any) -> bool:
        at = pointer if isinstance(pointer, int) else ctypes.cast(pointer, ctypes.c_void_p).value
        if before and at and at not in done and len(done) < 4096:
            done.add(at)
            tensor = _Tensor.from_address(at)
            what = base.ggml_op_desc(at).decode()
            if what not in IDLE:
                first = _Tensor.from_address(tensor.src[0]).type if tensor.src[0] else tensor.type
                kind = base.ggml_type_name(first).decode()
                where = base.ggml_backend_buffer_name(tensor.buffer) if tensor.buffer else b"?"
                seen.add(f"{what} {kind} {where.decode()}")
        return False

    return dict(llama_cpp.llama_context_params._fields_)["cb_eval"](ask)


@contextlib.contextmanager
def context(loaded: Any, way: Job, job: Job, seen: set[str]) -> Iterator[Any]:
    """A context that evaluates one way, watched; embeddings of each token for an encoder."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 512
    params.n_batch = params.n_ubatch = way["batch"]
    params.n_threads = params.n_threads_batch = job["threads"]
    callback = watcher(seen)
    params.cb_eval = callback
    if job["encoder"]:
        params.embeddings, params.pooling_type = True, 0
    if "flash_attn_type" in {name for name, *_ in params._fields_}:
        params.flash_attn_type = int(way["flash"])
    else:
        params.flash_attn = way["flash"]
    made = llama_cpp.llama_init_from_model(loaded, params)
    if not made:
        raise llama.Refused(f"no context: {llama.LOG.tail()}")
    try:
        yield made
    finally:
        llama_cpp.llama_free(made)
        del callback  # until here, the context calls it


def evaluate(
    made: Any, tokens: list[int], batch: int, width: int, encoder: bool
) -> npt.NDArray[np.float32]:
    """Logits or embeddings of every token (tokens x width)."""
    if not encoder:
        logits: npt.NDArray[np.float32] = llama.evaluate(made, tokens, batch, width)
        return logits
    space = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        space.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            space.token[i], space.pos[i], space.logits[i] = token, i, 1
            space.n_seq_id[i], space.seq_id[i][0] = 1, 0
        if code := llama_cpp.llama_decode(made, space):
            raise llama.Refused(f"llama_decode returned {code}: {llama.LOG.tail()}")
        found = llama_cpp.llama_get_embeddings(made)
        return np.array(np.ctypeslib.as_array(found, (len(tokens), width)))
    finally:
        llama_cpp.llama_batch_free(space)
