"""A tiny vision projector (SigLIP with Gemma 3's pooling) as a GGUF file, and its reference.

A picture of exactly the projector's size is not resized, so the reference has 20 lines of NumPy. It
tests what a text model lacks: IM2COL, POOL_2D, GELU, layer norms, attention without a mask.
Layout: build_siglip and PROJECTOR_TYPE_GEMMA3 in llama.cpp's tools/mtmd/clip.cpp.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import tiny_encoder
import tiny_llama
from tiny_encoder import Array, Weights

SIZE, PATCH, WIDTH, HEADS, FF, LAYERS, POOL, EPS = 224, 14, 128, 2, 256, 2, 4, 1e-6
SIDE = SIZE // PATCH  # patches in a row
TOKENS = (SIDE // POOL) ** 2  # of a picture in a text model's context
SEED = 7
PICTURE = npt.NDArray[np.uint8]


def make(path: Path, kind: str, seed: int = SEED) -> dict[str, npt.NDArray[np.float32]]:
    """Write the projector with matrices of F32 or F16. Returns its weights."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "embedding_length": WIDTH,
        "feed_forward_length": FF,
        "block_count": LAYERS,
        "projection_dim": tiny_llama.EMBD,
        "attention.head_count": HEADS,
        "image_size": SIZE,
        "patch_size": PATCH,
        "projector.scale_factor": POOL,
    }
    for key, number in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", EPS)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    drawing = tiny_encoder.Drawing(writer, tiny_llama.Draw(seed), kind)
    fan = 3 * PATCH * PATCH
    drawing.matrix("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH, inputs=fan)
    drawing.vector("v.patch_embd.bias", drawing.draw.normal(WIDTH) / np.float32(8))
    drawing.vector("v.position_embd.weight", drawing.draw.normal(SIDE**2, WIDTH) / np.float32(2))
    for layer in range(LAYERS):
        name = f"v.blk.{layer}."
        drawing.norm(name + "ln1", WIDTH)
        drawing.norm(name + "ln2", WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            drawing.linear(name + part, WIDTH, WIDTH)
        drawing.linear(name + "ffn_up", FF, WIDTH)
        drawing.linear(name + "ffn_down", WIDTH, FF)
    drawing.norm("v.post_ln", WIDTH)
    drawing.vector("mm.soft_emb_norm.weight", drawing.draw.gain(WIDTH))
    # llama.cpp transposes this matrix: its rows are inputs.
    drawing.matrix("mm.input_projection.weight", WIDTH, tiny_llama.EMBD, inputs=WIDTH)
    tiny_llama.finish(writer)
    weights: dict[str, npt.NDArray[np.float32]] = drawing.weights
    return weights


def picture(seed: int = 11) -> PICTURE:
    """A picture of squares of random colours (rows × columns × RGB)."""
    squares = tiny_llama.Draw(seed).bytes(SIZE // 8, SIZE // 8, 3)
    found: PICTURE = squares.repeat(8, axis=0).repeat(8, axis=1)
    return found


def forward(weights: Weights, pixels: PICTURE) -> Array:
    """The embeddings of a picture for a text model (TOKENS × its width)."""
    w = tiny_encoder.doubles(weights)
    x = pixels.astype(np.float64) / 255 * 2 - 1
    patches = x.reshape(SIDE, PATCH, SIDE, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(SIDE**2, -1)
    h = patches @ w["v.patch_embd.weight"].reshape(WIDTH, -1).T + w["v.patch_embd.bias"]
    h = h + w["v.position_embd.weight"]
    for layer in range(LAYERS):
        name = f"v.blk.{layer}."
        y = tiny_encoder.norm(w, name + "ln1", h, EPS)
        q, k, v = (
            tiny_encoder.linear(w, name + part, y) for part in ("attn_q", "attn_k", "attn_v")
        )
        h = h + tiny_encoder.linear(w, name + "attn_out", tiny_encoder.attention(q, k, v, HEADS))
        y = tiny_encoder.norm(w, name + "ln2", h, EPS)
        y = tiny_encoder.gelu(tiny_encoder.linear(w, name + "ffn_up", y))
        h = h + tiny_encoder.linear(w, name + "ffn_down", y)
    h = tiny_encoder.norm(w, "v.post_ln", h, EPS)
    rows = SIDE // POOL
    pooled: Array = h.reshape(rows, POOL, rows, POOL, WIDTH).mean(axis=(1, 3)).reshape(TOKENS, -1)
    scale: Array = np.sqrt((pooled**2).mean(axis=-1, keepdims=True) + EPS)
    return pooled / scale * w["mm.soft_emb_norm.weight"] @ w["mm.input_projection.weight"]
