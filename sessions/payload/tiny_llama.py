"""Writes a tiny and a larger llama model as GGUF files, with the same bytes on every machine.

Two layers, grouped-query attention, and widths that are multiples of 256, so that every GGML
type fits and the tensor-core kernels are used. Weights are drawn so that logits are near N(0, 1):
larger ones overflow fp16 inside those kernels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as GgmlType

Array = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]

VOCAB, CONTEXT = 512, 1024
ROPE_BASE, EPS = 10000.0, 1e-5
SEED = 2026
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

# The offsets of a block's fp16 scale and fp16 minimum, and the mean of the values from which the
# minimum is subtracted, in scales. Source: block_* in llama.cpp's ggml-common.h.
SCALES = {
    "Q2_K": (80, 82, 1.5),
    "Q3_K": (108, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
    "IQ2_XXS": (0, None, 0.0),
    "IQ2_XS": (0, None, 0.0),
    "IQ2_S": (0, None, 0.0),
    "IQ3_XXS": (0, None, 0.0),
    "IQ3_S": (0, None, 0.0),
    "IQ1_S": (0, None, 0.0),
    "IQ4_NL": (0, None, 0.0),
    "IQ4_XS": (0, None, 0.0),
}
QUANTIZED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")  # gguf quantizes
FLOATS = ("F32", "F16", "BF16")
TYPES = (*FLOATS, *QUANTIZED, *SCALES, "IQ1_M", "NVFP4")


@dataclass(frozen=True)
class TinyModel:
    """The sha256 of the file, and every weight dequantized, as llama.cpp reads it."""

    type: str
    sha256: str
    weights: dict[str, Array]


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    layers: int
    embd: int
    heads: int
    kv_heads: int
    ff: int
    drawn: int  # rows of a matrix that are drawn; a longer matrix repeats them

    @property
    def head(self) -> int:
        """Values of one attention head."""
        return self.embd // self.heads


TINY = Shape(layers=2, embd=512, heads=8, kv_heads=4, ff=1024, drawn=1024)
# For measuring a CPU: 252 million weights, more than most caches contain.
LARGE = Shape(layers=4, embd=2048, heads=16, kv_heads=8, ff=8192, drawn=64)
LAYERS, EMBD, HEADS, KV_HEADS, FF = TINY.layers, TINY.embd, TINY.heads, TINY.kv_heads, TINY.ff
HEAD = TINY.head


class Draw:
    """Random numbers that are the same on every machine: sums of integers, no logarithms."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def normal(self, *shape: int) -> Array:
        """Close to N(0, 1): the sum of four uniform numbers."""
        sums = self._generator.integers(0, 1 << 16, size=(4, *shape), dtype=np.int64).sum(axis=0)
        deviation = 2.0 * ((1 << 32) / 12) ** 0.5
        found: Array = ((sums - 2.0 * 65535) / deviation).astype(np.float32)
        return found

    def gain(self, width: int) -> Array:
        """Weights of a norm: around 1."""
        return (1 + self.normal(width) / 8).astype(np.float32)

    def bytes(self, *shape: int) -> Blocks:
        """Uniform bytes."""
        return self._generator.integers(0, 256, size=shape, dtype=np.uint8)


def make(path: Path, type_name: str, seed: int = SEED) -> TinyModel:
    """Write the tiny model with matrices of one GGML type."""
    weights: dict[str, Array] = {}
    return TinyModel(type_name, write(path, type_name, seed, weights=weights), weights)


def write(
    path: Path,
    type_name: str,
    seed: int = SEED,
    *,
    shape: Shape | None = None,
    weights: dict[str, Array] | None = None,
) -> str:
    """Write a model and return its SHA-256. ``weights`` receives the weights if it is given."""
    shape = shape or TINY
    kind = GgmlType[type_name]
    writer = gguf.GGUFWriter(path, "llama")
    _metadata(writer, shape)
    draw = Draw(seed)

    def plain(name: str, values: Array) -> None:
        writer.add_tensor(name, values)
        if weights is not None:
            weights[name] = values

    def matrix(name: str, rows: int, columns: int) -> None:
        drawn = min(rows, shape.drawn)
        data = np.tile(blocks(draw, kind, drawn, columns), (rows // drawn, 1))
        writer.add_tensor(name, data, raw_dtype=kind)
        if weights is not None:
            weights[name] = dequantize(data, kind).reshape(rows, columns)

    embd, kv = shape.embd, shape.kv_heads * shape.head
    plain("token_embd.weight", draw.normal(VOCAB, embd))
    for layer in range(shape.layers):
        name = f"blk.{layer}."
        plain(name + "attn_norm.weight", draw.gain(embd))
        matrix(name + "attn_q.weight", embd, embd)
        matrix(name + "attn_k.weight", kv, embd)
        matrix(name + "attn_v.weight", kv, embd)
        matrix(name + "attn_output.weight", embd, embd)
        plain(name + "ffn_norm.weight", draw.gain(embd))
        matrix(name + "ffn_gate.weight", shape.ff, embd)
        matrix(name + "ffn_up.weight", shape.ff, embd)
        matrix(name + "ffn_down.weight", embd, shape.ff)
    plain("output_norm.weight", draw.gain(embd))
    matrix("output.weight", VOCAB, embd)
    finish(writer)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all parts of a GGUF file and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks(draw: Draw, kind: GgmlType, rows: int, columns: int) -> npt.NDArray[np.generic]:
    """A matrix of a GGML type, with values of the deviation 1/sqrt(columns)."""
    wanted = columns**-0.5
    if kind.name == "F32":
        return draw.normal(rows, columns) * np.float32(wanted)
    if kind.name in (*FLOATS, *QUANTIZED):
        values = draw.normal(rows, columns) * np.float32(wanted)
        if kind.name == "F16":
            return values.astype(np.float16)
        return gguf.quants.quantize(values, kind)
    size, width = gguf.GGML_QUANT_SIZES[kind]
    data = draw.bytes(rows * columns // size, width)
    spread = (0.5 + draw.bytes(len(data)) / 255).astype(np.float32)  # 0.5 … 1.5, block by block
    if kind.name == "NVFP4":
        return _nvfp4(data, wanted).reshape(rows, -1)
    ones = np.ones(len(data), dtype=np.float32)
    _scale(data, kind.name, ones)
    factor = wanted / float(np.std(dequantize(data, kind)))
    _scale(data, kind.name, spread * np.float32(factor))
    return data.reshape(rows, -1)


def _scale(data: Blocks, name: str, scales: Array) -> None:
    """Write the scale of each block."""
    half = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    if name == "IQ1_M":  # the scale is in the high nibbles of four 16-bit words
        number = scales.astype("<f2").view("<u2")
        for word in range(4):
            nibble = ((number >> (4 * word)) & 0xF).astype(np.uint8)
            at = 48 + 2 * word + 1
            data[:, at] = (data[:, at] & 0x0F) | (nibble << 4)
        return
    scale, minimum, mean = SCALES[name]
    data[:, scale : scale + 2] = half
    if minimum is not None:
        low = (scales * np.float32(mean)).astype("<f2").view(np.uint8).reshape(-1, 2)
        data[:, minimum : minimum + 2] = low


def _nvfp4(data: Blocks, wanted: float) -> Blocks:
    """Set the four UE4M3 scales of each block to the one of 126 with the closest deviation."""

    def deviation(byte: int) -> float:
        few = data[:64].copy()
        few[:, :4] = byte
        return float(np.std(dequantize(few, GgmlType.NVFP4)))

    data[:, :4] = min(range(1, 127), key=lambda byte: abs(deviation(byte) - wanted))
    return data


def dequantize(data: npt.NDArray[np.generic], kind: GgmlType) -> Array:
    """The values of blocks, as float32."""
    if kind.name in ("F32", "F16"):
        return data.astype(np.float32)
    return gguf.quants.dequantize(data, kind)


def prompt(length: int, seed: int = SEED) -> list[int]:
    """The token ids of a prompt: a beginning-of-text, then ordinary tokens."""
    drawn = Draw(seed + 1).bytes(length, 2).astype(int)
    return [1, *(259 + (a * 256 + b) % (VOCAB - 259) for a, b in drawn[1:].tolist())]


def _metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.embd)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(VOCAB)
    tokens, kinds = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(VOCAB)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)


def vocabulary() -> tuple[list[bytes], list[int]]:
    """A SentencePiece vocabulary: three special tokens, all bytes, and short pieces of text."""
    normal, unknown, control, byte = 1, 2, 3, 6
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["\u2581", *letters, *letters.upper(), *"0123456789.,!?:;'-"]
    pieces += [f"\u2581{letter}" for letter in letters]
    pieces += [a + b for a in "aeiou" for b in letters]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *pieces]
    tokens += [f"\u2581x{n}" for n in range(VOCAB - len(tokens))]
    kinds = [unknown, control, control, *[byte] * 256]
    kinds += [normal] * (VOCAB - len(kinds))
    return [token.encode() for token in tokens], kinds
