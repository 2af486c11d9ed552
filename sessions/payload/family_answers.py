"""Computes a tiny model of a family in one GGML type and compares it with transformers.

``sessions/run/families.py`` makes the part of the job that says what is compared.
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
    """Print a ``result`` for each way of the job, or its ``error`` if llama.cpp refuses.

    ``plant`` in the job is a defect: [PART, FACTOR] multiplies the F32 tensors whose name contains
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
    """The result of one way: the NMSE of the compared tokens, and that of the worst token."""
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
    """A loaded model: all on the GPU (split ""), or part of it on the CPU. Raises Refused.

    ``experts``: the experts of the first layer that has any are on the CPU, as with --n-cpu-moe of
    llama.cpp's programs; ``half``: only the later half of the layers is on the GPU.
    """
    more: Job = {}
    if split == "half" and layers:
        layers = 2  # the output counts as a layer
    if split == "experts":
        overrides = (_Override * 2)(
            _Override(rb"blk\.[01]\.ffn_(up|down|gate)_exps", _host_memory()),
            _Override(None, None),
        )
        name = "tensor_buft_overrides"
        more[name] = ctypes.cast(overrides, dict(llama_cpp.llama_model_params._fields_)[name])
    with llama.model(path, layers, **more) as loaded:
        yield loaded


def _host_memory() -> int:
    """The buffer type of the CPU's device, from whichever library has it."""
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
    """A callback of ggml's scheduler that adds each operation to ``seen``.

    An operation is one text: name, type of the first source, buffer. The scheduler calls it before
    each node; because it returns False, the graph is computed as without it.
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
    """A context for one way that adds its operations to ``seen``. An encoder has embeddings."""
    more: Job = {"embeddings": True, "pooling_type": 0} if job["encoder"] else {}
    callback = watcher(seen)  # must exist as long as the context
    settings: Job = {"batch": way["batch"], "flash": way["flash"], "threads": job["threads"]}
    with llama.context(loaded, kv="f16", length=512, cb_eval=callback, **settings, **more) as made:
        yield made


def evaluate(
    made: Any, tokens: list[int], batch: int, width: int, encoder: bool
) -> npt.NDArray[np.float32]:
    """Logits or embeddings of every token (tokens x width). Raises Refused."""
    if not encoder:
        logits: npt.NDArray[np.float32] = llama.evaluate(made, tokens, batch, width)
        return logits
    llama.decode_together(made, [tokens])
    found = llama_cpp.llama_get_embeddings(made)
    return np.array(np.ctypeslib.as_array(found, (len(tokens), width)))
