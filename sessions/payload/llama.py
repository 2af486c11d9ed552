"""Calls llama.cpp through the wheel's low-level bindings, which differ from release to release."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

KV_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # enum ggml_type


class Refused(Exception):
    """llama.cpp refused a model, a context or a batch."""


@dataclass
class Log:
    """The log of llama.cpp and ggml since the last ``clear``."""

    lines: list[str] = field(default_factory=list)

    def clear(self) -> None:
        """Delete all lines."""
        self.lines.clear()

    def tail(self, size: int = 600) -> str:
        """The last characters, for an error."""
        return "".join(self.lines)[-size:].strip()

    def devices(self) -> list[tuple[str, str]]:
        """(name, compute capability) of the GPUs that CUDA started with."""
        pattern = r"Device \d+: (.+?), compute capability ([\d.]+)"
        return re.findall(pattern, "".join(self.lines))

    def offloaded(self) -> tuple[int, int] | None:
        """(layers on the device, all layers), as printed when the model was loaded."""
        found = re.search(r"offloaded (\d+)/(\d+) layers to GPU", "".join(self.lines))
        return (int(found[1]), int(found[2])) if found else None

    def buffers(self) -> dict[str, float]:
        """Buffers of model, cache and computation: "CUDA0 model" -> MiB."""
        pattern = r"(\S+) +(model|KV|compute|output) +buffer size = +([\d.]+) MiB"
        found: dict[str, float] = {}
        for device, kind, size in re.findall(pattern, "".join(self.lines)):
            found[f"{device} {kind}"] = found.get(f"{device} {kind}", 0.0) + float(size)
        return found


LOG = Log()
_ERROR = 4  # enum ggml_log_level
# JamePeng's fork has only ggml's name.
_callback = getattr(llama_cpp, "llama_log_callback", None) or llama_cpp.ggml_log_callback


@_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _data: object) -> None:
    line = text.decode("utf-8", "replace")
    LOG.lines.append(line)
    if level == _ERROR:  # written at once, because the process may abort
        sys.stderr.write(line)
        sys.stderr.flush()


def start() -> None:
    """Redirect the log to ``LOG`` and start the backends."""
    llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


@contextlib.contextmanager
def model(path: Path, layers: int, split: Sequence[float] = (), **more: Any) -> Iterator[Any]:
    """A loaded model, with ``layers`` on the device, or divided in these shares among several.

    ``more`` are other fields of its parameters. Raises Refused.
    """
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = layers
    if split:  # an array with one number per possible device
        shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*split)
        params.tensor_split = shares
    for name, value in more.items():
        setattr(params, name, value)
    loaded = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not loaded:
        raise Refused(f"the model does not load: {LOG.tail(1500)}")
    try:
        yield loaded
    finally:
        llama_cpp.llama_model_free(loaded)


@contextlib.contextmanager
def context(
    loaded: Any, *, batch: int, flash: bool, kv: str, threads: int, length: int, **more: Any
) -> Iterator[Any]:
    """A context for ``batch`` tokens at once; ``more``: other parameters. Raises Refused."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = length
    params.n_batch = params.n_ubatch = batch
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = KV_TYPES[kv]
    if "flash_attn_type" in {name for name, *_ in params._fields_}:
        params.flash_attn_type = int(flash)  # enum llama_flash_attn_type: 0 off, 1 on
    else:
        params.flash_attn = flash
    for name, value in more.items():
        setattr(params, name, value)
    made = llama_cpp.llama_init_from_model(loaded, params)
    if not made:
        raise Refused(f"no context: {LOG.tail()}")
    try:
        yield made
    finally:
        llama_cpp.llama_free(made)


def evaluate(
    made: Any, tokens: Sequence[int], batch: int, vocabulary: int
) -> npt.NDArray[np.float32]:
    """Logits of every token (tokens × vocabulary), ``batch`` at a time. Raises Refused."""
    rows = []
    for at in range(0, len(tokens), batch):
        part = tokens[at : at + batch]
        _decode_rows(made, [(token, at + n, 0) for n, token in enumerate(part)])
        logits = llama_cpp.llama_get_logits(made)
        rows.append(np.ctypeslib.as_array(logits, (len(part), vocabulary)).copy())
    return np.concatenate(rows)


def decode_together(made: Any, texts: Sequence[Sequence[int]]) -> None:
    """Evaluate several texts in one batch, each as its own sequence. Raises Refused."""
    rows = [(token, n, number) for number, ids in enumerate(texts) for n, token in enumerate(ids)]
    _decode_rows(made, rows)


def _decode_rows(made: Any, rows: Sequence[tuple[int, int, int]]) -> None:
    """Evaluate a batch of (token, position, sequence); all tokens are outputs."""
    space = llama_cpp.llama_batch_init(len(rows), 0, 1)
    try:
        space.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            space.token[i], space.pos[i], space.logits[i] = token, position, 1
            space.n_seq_id[i], space.seq_id[i][0] = 1, sequence
        code = llama_cpp.llama_decode(made, space)
    finally:
        llama_cpp.llama_batch_free(space)
    if code:
        raise Refused(f"llama_decode returned {code}: {LOG.tail()}")


def tokenize(loaded: Any, text: str, *, special: bool = True) -> list[int]:
    """The tokens of a text; with ``special``, also those that the model adds around it."""
    data = text.encode()
    space = (llama_cpp.llama_token * (len(data) + 8))()
    vocabulary = llama_cpp.llama_model_get_vocab(loaded)
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), space, len(space), special, False)
    return list(space[: max(count, 0)])


def set_adapter(made: Any, adapter: Any, scale: float) -> None:
    """Use a LoRA adapter in a context. Raises Refused."""
    if hasattr(llama_cpp, "llama_set_adapter_lora"):
        code = llama_cpp.llama_set_adapter_lora(made, adapter, scale)
    else:  # newer llama.cpp takes several at once
        scales = (ctypes.c_float * 1)(scale)
        code = llama_cpp.llama_set_adapters_lora(made, (type(adapter) * 1)(adapter), 1, scales)
    if code:
        raise Refused(f"the adapter is not taken: {LOG.tail()}")


def decode(made: Any, tokens: Sequence[int]) -> None:
    """Evaluate more tokens in one batch, with logits of the last, and wait. Raises Refused."""
    given = (llama_cpp.llama_token * len(tokens))(*tokens)
    code = llama_cpp.llama_decode(made, llama_cpp.llama_batch_get_one(given, len(tokens)))
    if code:
        raise Refused(f"llama_decode returned {code}: {LOG.tail()}")
    llama_cpp.llama_synchronize(made)


def forget(made: Any) -> None:
    """Empty a context's cache."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(made), False)


def knows(type_number: int) -> bool:
    """Whether this release of ggml knows a type, according to its library."""
    name = library("ggml-base").ggml_type_name
    name.argtypes, name.restype = [ctypes.c_int], ctypes.c_char_p
    found = name(type_number)
    return bool(found) and found.decode().upper() not in ("NONE", "COUNT", "DEPRECATED")


def memory(device: int = 0) -> tuple[int, int]:
    """(free, total) bytes of the device's memory, from CUDA."""
    ask = library("ggml-cuda").ggml_backend_cuda_get_device_memory
    size = ctypes.POINTER(ctypes.c_size_t)
    ask.argtypes, ask.restype = [ctypes.c_int, size, size], None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask(device, ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def library(name: str) -> ctypes.CDLL:
    """A library of the wheel. Raises Refused if the wheel does not have it."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = (f"{name}.dll", f"lib{name}.dll") if sys.platform == "win32" else (f"lib{name}.so",)
    for candidate in names:
        if (folder / candidate).exists():
            return ctypes.CDLL(str(folder / candidate))
    raise Refused(f"the wheel contains no {name}")


def loaded_libraries() -> list[str]:
    """Paths of the CUDA and llama.cpp libraries in this process."""
    wanted = re.compile(r"cuda|cublas|nvrtc|nvjitlink|ggml|libllama|llama\.dll|mtmd", re.IGNORECASE)
    return sorted({path for path in _modules() if wanted.search(Path(path).name)})


def _modules() -> Iterator[str]:
    if sys.platform == "win32":
        from ctypes import wintypes

        kernel, psapi = ctypes.windll.kernel32, ctypes.windll.psapi
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        handles = (wintypes.HMODULE * 1024)()
        needed = wintypes.DWORD()
        process = wintypes.HANDLE(kernel.GetCurrentProcess())
        psapi.EnumProcessModules(process, handles, ctypes.sizeof(handles), ctypes.byref(needed))
        for handle in handles[: needed.value // ctypes.sizeof(wintypes.HMODULE)]:
            name = ctypes.create_unicode_buffer(32768)
            kernel.GetModuleFileNameW(wintypes.HMODULE(handle), name, len(name))
            yield name.value
    else:
        for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
            path = line.partition("/")[2]
            if path:
                yield f"/{path}"
