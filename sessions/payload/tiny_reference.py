"""The reference results of the tiny model: a float64 forward pass in NumPy without llama.cpp.

The CPU path of a CUDA build cannot be the reference: it computes batches of 32 tokens or more on
the GPU even if no layer is offloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tiny_llama import EPS, HEAD, HEADS, KV_HEADS, LAYERS, ROPE_BASE

Array = npt.NDArray[np.float64]


def forward(
    weights: Mapping[str, npt.NDArray[np.float32]], tokens: Sequence[int]
) -> tuple[Array, Array]:
    """Logits (tokens × vocabulary) and the normalized last hidden state (tokens × width)."""
    embeddings = weights["token_embd.weight"][list(tokens)]
    return from_embeddings(weights, embeddings.astype(np.float64), range(0))


def from_embeddings(
    weights: Mapping[str, npt.NDArray[np.float32]], x: Array, picture: range
) -> tuple[Array, Array]:
    """The same for embeddings (tokens × width); those of a ``picture`` see each other."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    visible = np.tri(len(x), dtype=bool)
    visible[picture.start : picture.stop, picture.start : picture.stop] = True
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        h = _norm(x, w[name + "attn_norm.weight"])
        q = _rope(_heads(h @ w[name + "attn_q.weight"].T, HEADS))
        k = _rope(_heads(h @ w[name + "attn_k.weight"].T, KV_HEADS))
        v = _heads(h @ w[name + "attn_v.weight"].T, KV_HEADS)
        shared = HEADS // KV_HEADS
        k, v = np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0)
        seen = _softmax(q @ k.transpose(0, 2, 1) / HEAD**0.5, visible) @ v
        x = x + seen.transpose(1, 0, 2).reshape(len(x), -1) @ w[name + "attn_output.weight"].T
        h = _norm(x, w[name + "ffn_norm.weight"])
        gate = h @ w[name + "ffn_gate.weight"].T
        up = h @ w[name + "ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[name + "ffn_down.weight"].T
    hidden = _norm(x, w["output_norm.weight"])
    return hidden @ w["output.weight"].T, hidden


def nmse(found: npt.NDArray[np.floating], wanted: Array) -> float:
    """The squared error divided by the squared result; 0 is exact; NaN exceeds every bound."""
    return float(((found.astype(np.float64) - wanted) ** 2).sum() / (wanted**2).sum())


def _norm(x: Array, weight: Array) -> Array:
    scale: Array = np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
    return x / scale * weight


def _heads(x: Array, count: int) -> Array:
    """Tokens × (heads · width) -> heads × tokens × width."""
    return x.reshape(len(x), count, HEAD).transpose(1, 0, 2)


def _rope(x: Array) -> Array:
    """Rotate pairs of neighbours, as llama.cpp does for the llama architecture."""
    position = np.arange(x.shape[1])[:, None]
    angle = position * ROPE_BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    cos, sin = np.cos(angle), np.sin(angle)
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


def _softmax(scores: Array, visible: npt.NDArray[np.bool_]) -> Array:
    scores = np.where(visible, scores, -np.inf)
    power: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Array = power / power.sum(axis=-1, keepdims=True)
    return shares
