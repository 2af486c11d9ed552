"""Draws weights and computes float64 layers, for the tiny projector and the tiny BERT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import gguf
import numpy as np
import numpy.typing as npt
from tiny_llama import Draw

Array = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Drawing:
    """A GGUF file whose weights are being drawn; ``weights`` has them as llama.cpp reads them.

    ``kind`` is the type of the matrices, "F32" or "F16"; other tensors are F32.
    """

    writer: gguf.GGUFWriter
    draw: Draw
    kind: str
    weights: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def vector(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Add a tensor in F32."""
        self.writer.add_tensor(name, values)
        self.weights[name] = values

    def matrix(self, name: str, *shape: int, inputs: int) -> None:
        """Add a matrix of deviation 1/sqrt(inputs), so that its products are near N(0, 1)."""
        values = self.draw.normal(*shape) * np.float32(inputs**-0.5)
        data = values.astype(np.float16) if self.kind == "F16" else values
        self.writer.add_tensor(name, data)
        self.weights[name] = data.astype(np.float32)

    def linear(self, name: str, outputs: int, inputs: int) -> None:
        """Add a matrix with a bias."""
        self.matrix(f"{name}.weight", outputs, inputs, inputs=inputs)
        self.vector(f"{name}.bias", self.draw.normal(outputs) / np.float32(8))

    def norm(self, name: str, width: int) -> None:
        """Add gain and bias of a layer norm."""
        self.vector(f"{name}.weight", self.draw.gain(width))
        self.vector(f"{name}.bias", self.draw.normal(width) / np.float32(8))


def linear(w: Mapping[str, Array], name: str, x: Array) -> Array:
    """Apply a matrix and its bias."""
    found: Array = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return found


def norm(w: Mapping[str, Array], name: str, x: Array, eps: float) -> Array:
    """Layer norm: mean 0, variance 1, then gain and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale: Array = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    found: Array = centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]
    return found


def gelu(x: Array) -> Array:
    """GELU by the tanh formula, as in ggml_gelu."""
    inner = math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)
    found: Array = 0.5 * x * (1 + np.tanh(inner))
    return found


def attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Attention in which every token sees every other one (tokens × width)."""
    length, width = q.shape
    q, k, v = (x.reshape(length, heads, width // heads).transpose(1, 0, 2) for x in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / (width // heads) ** 0.5
    power = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen: Array = power / power.sum(axis=-1, keepdims=True) @ v
    return seen.transpose(1, 0, 2).reshape(length, width)


def doubles(weights: Weights) -> dict[str, Array]:
    """The weights in float64."""
    return {name: values.astype(np.float64) for name, values in weights.items()}
