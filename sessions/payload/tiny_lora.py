"""A LoRA adapter for the tiny llama as a GGUF file, and the weights of the adapted model.

Format: llama_adapter_lora_init_impl in llama.cpp's llama-adapter.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import tiny_llama

RANK, ALPHA = 8, 16.0
SEED = 3
SHARE = 0.5  # deviation of the changes, in deviations of the weights
CHANGED = ("attn_q", "attn_v", "ffn_down")

Matrix = npt.NDArray[np.float32]
Pairs = dict[str, tuple[Matrix, Matrix]]


def make(path: Path, model: Mapping[str, Matrix], seed: int = SEED) -> Pairs:
    """Write the adapter for a model with these weights.

    Returns (A, B) of each changed weight, with the shapes ranks × inputs and outputs × ranks.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    draw = tiny_llama.Draw(seed)
    pairs: Pairs = {}
    for name, values in model.items():
        if name.split(".")[-2] not in CHANGED:
            continue
        outputs, inputs = values.shape
        # A·B then has a deviation of SHARE/sqrt(inputs), where the weights have 1/sqrt(inputs).
        a = (draw.normal(RANK, inputs) * np.float32(inputs**-0.5)).astype(np.float16)
        factor = np.float32(SHARE * RANK**0.5 / ALPHA)
        b = (draw.normal(outputs, RANK) * factor).astype(np.float16)
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
        pairs[name] = a.astype(np.float32), b.astype(np.float32)
    tiny_llama.finish(writer)
    return pairs


def applied(model: Mapping[str, Matrix], pairs: Pairs, scale: float) -> dict[str, Matrix]:
    """The model's weights with the adapter applied at this scale."""
    found = dict(model)
    for name, (a, b) in pairs.items():
        found[name] = model[name] + np.float32(scale * ALPHA / RANK) * (b @ a)
    return found
