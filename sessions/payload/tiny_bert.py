"""A tiny BERT, as embedding models are, as a GGUF file, and its float64 reference.

It tests attention without a mask or a cache, layer norms, GELU, and the pooling of llama.cpp.
Layout: llm_build_bert in llama.cpp. The vocabulary has each letter twice: at the start of a word
and within a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import tiny_encoder
import tiny_llama
from tiny_encoder import Array, Weights

WIDTH, HEADS, FF, LAYERS, CONTEXT, EPS = 256, 4, 512, 2, 256, 1e-12
SEED = 5
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST, WITHIN = len(SPECIAL), len(SPECIAL) + len(LETTERS)  # the ids of "a" by its place in a word
VOCABULARY = [*SPECIAL, *(f"\u2581{letter}" for letter in LETTERS), *LETTERS]
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3}  # enum llama_pooling_type


def make(path: Path, kind: str, seed: int = SEED) -> dict[str, npt.NDArray[np.float32]]:
    """Write the model with matrices of F32 or F16. Returns its weights."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPS)
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(2)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * len(SPECIAL) + [1] * 2 * len(LETTERS))  # 3: control, 1: normal
    writer.add_pad_token_id(PAD)
    writer.add_unk_token_id(UNK)
    writer.add_bos_token_id(CLS)
    writer.add_eos_token_id(SEP)
    writer.add_sep_token_id(SEP)
    writer.add_mask_token_id(MASK)
    drawing = tiny_encoder.Drawing(writer, tiny_llama.Draw(seed), kind)
    drawing.vector("token_embd.weight", drawing.draw.normal(len(VOCABULARY), WIDTH))
    drawing.vector("token_types.weight", drawing.draw.normal(2, WIDTH) / np.float32(2))
    drawing.vector("position_embd.weight", drawing.draw.normal(CONTEXT, WIDTH) / np.float32(2))
    drawing.norm("token_embd_norm", WIDTH)
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            drawing.linear(name + part, WIDTH, WIDTH)
        drawing.norm(name + "attn_output_norm", WIDTH)
        drawing.linear(name + "ffn_up", FF, WIDTH)
        drawing.linear(name + "ffn_down", WIDTH, FF)
        drawing.norm(name + "layer_output_norm", WIDTH)
    tiny_llama.finish(writer)
    weights: dict[str, npt.NDArray[np.float32]] = drawing.weights
    return weights


def text(letters: int, seed: int = SEED) -> str:
    """A text of this number of letters, in words of one to seven letters."""
    draw = tiny_llama.Draw(seed)
    found = "".join(LETTERS[n % 26] for n in draw.bytes(letters))
    at, words = 0, []
    while at < letters:
        length = 1 + int(draw.bytes(1)[0]) % 7
        words.append(found[at : at + length])
        at += length
    return " ".join(words)


def tokens(words: str) -> list[int]:
    """The tokens of a text: its letters between [CLS] and [SEP]."""
    found = [CLS]
    for word in words.split():
        found += [FIRST + LETTERS.index(word[0]), *(WITHIN + LETTERS.index(n) for n in word[1:])]
    return [*found, SEP]


def forward(weights: Weights, ids: Sequence[int]) -> Array:
    """The embedding of each token (tokens × width)."""
    w = tiny_encoder.doubles(weights)
    h = w["token_embd.weight"][list(ids)] + w["token_types.weight"][0]
    h = tiny_encoder.norm(w, "token_embd_norm", h + w["position_embd.weight"][: len(ids)], EPS)
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        q, k, v = (
            tiny_encoder.linear(w, name + part, h) for part in ("attn_q", "attn_k", "attn_v")
        )
        seen = tiny_encoder.linear(w, name + "attn_output", tiny_encoder.attention(q, k, v, HEADS))
        h = tiny_encoder.norm(w, name + "attn_output_norm", h + seen, EPS)
        y = tiny_encoder.gelu(tiny_encoder.linear(w, name + "ffn_up", h))
        y = tiny_encoder.linear(w, name + "ffn_down", y)
        h = tiny_encoder.norm(w, name + "layer_output_norm", h + y, EPS)
    return h


def pooled(hidden: Array, pooling: str) -> Array:
    """The result for a text: the embeddings of its tokens, or one pooled embedding."""
    if pooling == "mean":
        mean: Array = hidden.mean(axis=0)
        return mean
    return {"none": hidden, "cls": hidden[0], "last": hidden[-1]}[pooling]
