"""The models of the features and their references, with errors planted in the references.

A wheel with an error differs from a right reference as a right wheel differs from a reference with
that error. So the errors are planted in the reference, and no wheel is needed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

from sessions.payload import (
    tiny_bert,
    tiny_encoder,
    tiny_llama,
    tiny_lora,
    tiny_reference,
    tiny_vision,
)
from tests import fakes

LEAST = 1e-3  # the widest bound of these answers is 1e-4
GOLDEN = {
    "tinyvision": "1208acacb5c5e01e72e859c2e009f7500418895a7e0ec1ebd1af1f2912d02705",
    "tinybert": "2c69047ffc52faef844f525ce8a5fe473b0cb6eefb8b07ac29699dfe2eec92c0",
    "tinylora": "6241023e857d14be5b2a75e61166164872a0be5ae6b32f06f5a9ac6e461de63a",
}
MODELS = {"tinyvision": tiny_vision, "tinybert": tiny_bert, "tinylora": tiny_lora}


def model(shape: tuple[int, int] = (64, 48)) -> dict[str, Any]:
    """The weights of a model for an adapter."""
    draw = np.random.default_rng(1)
    names = ("attn_q", "attn_k", "attn_v", "ffn_down")
    weights = {f"blk.0.{name}.weight": draw.normal(size=shape) for name in names}
    return {name: values.astype(np.float32) for name, values in weights.items()}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_files_have_the_same_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    made: Any = MODELS[name].make(path, model() if name == "tinylora" else "F16")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN[name]
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    if name == "tinylora":
        made = {
            f"{key}.lora_{n}": ab
            for key, pair in made.items()
            for n, ab in zip("ab", pair, strict=True)
        }
    assert tensors.keys() == made.keys()
    for key, values in made.items():
        assert np.array_equal(tensors[key].astype(np.float32), values), key


@functools.cache
def _weights(module: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(module.make(Path(folder) / "x.gguf", "F16"))


def weights_of(module: Any) -> dict[str, Any]:
    """The weights of a tiny model, in a new dictionary that a test may change."""
    return dict(_weights(module))


@functools.cache
def right_of(module: Any) -> Any:
    """The model's result for the text or the picture that the checks use."""
    given = module.picture() if module is tiny_vision else module.tokens(module.text(62))
    return module.forward(_weights(module), given)


Plant = Callable[[pytest.MonkeyPatch, dict[str, Any]], None]


def _relu(patch: pytest.MonkeyPatch, _: dict[str, Any]) -> None:
    patch.setattr(tiny_encoder, "gelu", lambda x: np.maximum(x, 0))


def _quick_gelu(patch: pytest.MonkeyPatch, _: dict[str, Any]) -> None:
    patch.setattr(tiny_encoder, "gelu", lambda x: x / (1 + np.exp(-1.702 * x)))


def _causal(patch: pytest.MonkeyPatch, _: dict[str, Any]) -> None:
    def attention(q: Any, k: Any, v: Any, heads: int) -> Any:
        q, k, v = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v))
        scores = q @ k.transpose(0, 2, 1) / q.shape[-1] ** 0.5
        power = np.exp(scores) * np.tri(scores.shape[-1])
        seen = power / power.sum(axis=-1, keepdims=True) @ v
        return seen.transpose(1, 0, 2).reshape(seen.shape[1], -1)

    patch.setattr(tiny_encoder, "attention", attention)


def _one_head(patch: pytest.MonkeyPatch, _: dict[str, Any]) -> None:
    right = tiny_encoder.attention
    patch.setattr(tiny_encoder, "attention", lambda q, k, v, heads: right(q, k, v, 1))


def _rms(patch: pytest.MonkeyPatch, _: dict[str, Any]) -> None:
    def norm(w: Any, name: str, x: Any, eps: float) -> Any:
        scale = np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
        return x / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    patch.setattr(tiny_encoder, "norm", norm)


def _without(name: str) -> Plant:
    def plant(_: pytest.MonkeyPatch, weights: dict[str, Any]) -> None:
        weights[name] = np.zeros_like(weights[name])

    return plant


# The errors, with the least NMSE of each. The two GELUs differ by at most 0.02, which the measured
# bounds notice, but a bound of 1e-4 would not.
SHARED = [
    (_relu, LEAST),
    (_quick_gelu, 1e-5),
    (_causal, LEAST),
    (_one_head, LEAST),
    (_rms, LEAST),
]
OF_VISION = [
    *SHARED,
    (_without("v.blk.1.ffn_down.bias"), LEAST),
    (_without("v.post_ln.bias"), LEAST),
]
OF_BERT = [
    *SHARED,
    (_without("token_types.weight"), LEAST),
    (_without("blk.1.layer_output_norm.bias"), LEAST),
]


@pytest.mark.parametrize(("plant", "least"), OF_VISION)
def test_an_error_of_a_projector_is_noticed(
    plant: Plant, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, right = weights_of(tiny_vision), right_of(tiny_vision)
    plant(monkeypatch, weights)
    assert tiny_reference.nmse(tiny_vision.forward(weights, tiny_vision.picture()), right) > least


@pytest.mark.parametrize("change", ["mirrored", "channels", "shifted", "another"])
def test_another_picture_gives_another_result(change: str) -> None:
    vision = tiny_vision
    pixels = vision.picture()
    other = {
        "mirrored": pixels[:, ::-1],
        "channels": pixels[:, :, ::-1],
        "shifted": np.roll(pixels, 1, axis=1),
        "another": vision.picture(12),
    }[change]
    right = right_of(vision)
    assert right.shape == (vision.TOKENS, tiny_llama.EMBD)
    assert np.std(right) == pytest.approx(1, abs=0.2)
    assert tiny_reference.nmse(vision.forward(weights_of(vision), other), right) > LEAST


def test_another_order_of_pooled_values_is_noticed() -> None:
    right = right_of(tiny_vision)
    across = right.reshape(4, 4, -1).transpose(1, 0, 2).reshape(right.shape)
    assert tiny_reference.nmse(across, right) > LEAST


@pytest.mark.parametrize(("plant", "least"), OF_BERT)
def test_an_error_of_a_bert_is_noticed(
    plant: Plant, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = tiny_bert
    weights, right = weights_of(bert), right_of(bert)
    plant(monkeypatch, weights)
    wrong = bert.forward(weights, bert.tokens(bert.text(62)))
    for pooling in bert.POOLING:
        error = tiny_reference.nmse(bert.pooled(wrong, pooling), bert.pooled(right, pooling))
        assert error > least, pooling


def test_each_pooling_gives_another_result() -> None:
    bert, hidden = tiny_bert, right_of(tiny_bert)
    ids = bert.tokens(bert.text(62))
    found = {name: bert.pooled(hidden, name) for name in bert.POOLING}
    assert found["none"].shape == (64, bert.WIDTH)
    for one, other in (("mean", "cls"), ("mean", "last"), ("cls", "last")):
        assert tiny_reference.nmse(found[one], found[other]) > LEAST
    # An error in which a text sees the other text of its batch, or continues its positions.
    far = bert.forward(weights_of(bert), [*ids, *ids])
    assert tiny_reference.nmse(far[: len(ids)], hidden) > LEAST


def test_the_tokens_of_letters_depend_on_their_place_in_a_word() -> None:
    bert = tiny_bert
    names = [bert.VOCABULARY[n] for n in bert.tokens("ab c")]
    assert names == ["[CLS]", "\u2581a", "b", "\u2581c", "[SEP]"]
    assert len(set(bert.VOCABULARY)) == len(bert.VOCABULARY) == 57
    for letters in (62, 190):
        text = bert.text(letters, seed=letters)
        assert len(bert.tokens(text)) == letters + 2
        assert {len(word) for word in text.split()} > {1, 5}
    # Without a cache, flash attention of 0.3.16 needs a multiple of 256 tokens.
    assert 62 + 2 + 190 + 2 == 256 <= bert.CONTEXT


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_an_adapter_adds_the_product_of_its_matrices(scale: float, tmp_path: Path) -> None:
    lora, before = tiny_lora, model()
    pairs = lora.make(tmp_path / "x.gguf", before)
    after = lora.applied(before, pairs, scale)
    assert sorted(pairs) == [f"blk.0.{name}.weight" for name in ("attn_q", "attn_v", "ffn_down")]
    for name, values in before.items():
        changed = after[name] - values
        if name not in pairs:
            assert not changed.any()
            continue
        # At a scale of 1, half of the weights: no bound could hide it.
        deviation = lora.SHARE * values.shape[1] ** -0.5
        assert np.std(changed) == pytest.approx(scale * deviation, rel=0.2)


def test_the_tokens_of_a_picture_see_each_other_and_earlier_tokens() -> None:
    tiny: Any = tiny_llama
    rng = np.random.default_rng(3)
    shapes = {
        "attn_q": (tiny.EMBD, tiny.EMBD),
        "attn_k": (tiny.KV_HEADS * tiny.HEAD, tiny.EMBD),
        "attn_v": (tiny.KV_HEADS * tiny.HEAD, tiny.EMBD),
        "attn_output": (tiny.EMBD, tiny.EMBD),
        "ffn_gate": (tiny.FF, tiny.EMBD),
        "ffn_up": (tiny.FF, tiny.EMBD),
        "ffn_down": (tiny.EMBD, tiny.FF),
    }
    weights = {
        f"blk.{layer}.{name}.weight": rng.normal(size=shape) / shape[1] ** 0.5
        for layer in range(tiny.LAYERS)
        for name, shape in shapes.items()
    }
    norms = [f"blk.{layer}.{kind}_norm" for layer in range(tiny.LAYERS) for kind in ("attn", "ffn")]
    weights |= {f"{name}.weight": np.ones(tiny.EMBD) for name in (*norms, "output_norm")}
    weights["output.weight"] = rng.normal(size=(8, tiny.EMBD))
    x = rng.normal(size=(7, tiny.EMBD))
    found, _ = tiny_reference.from_embeddings(weights, x, range(2, 5))
    causal, _ = tiny_reference.from_embeddings(weights, x, range(0))
    assert np.allclose(found[:2], causal[:2])
    assert not np.allclose(found[2:4], causal[2:4])
    # A picture of all tokens gives another result.
    last, _ = tiny_reference.from_embeddings(weights, x[:5], range(5))
    assert not np.allclose(last[:2], found[:2])
    again, _ = tiny_reference.from_embeddings(weights, x[:5], range(2, 5))
    assert np.allclose(again, found[:5])


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module as a child imports it, with nearly empty bindings."""
    log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(llama_log_callback=log))
    monkeypatch.syspath_prepend(str(fakes.ROOT / "sessions" / "payload"))
    before = set(sys.modules)
    yield importlib.import_module("features")
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("kind", [ctypes.POINTER(ctypes.c_uint8), ctypes.c_char_p])
def test_a_picture_is_passed_to_both_kinds_of_bindings(features: Any, kind: Any) -> None:
    class Text(ctypes.Structure):
        _fields_ = [("text", ctypes.c_char_p), ("add_special", ctypes.c_bool)]

    given = []

    def tokens(_: int, count: Any) -> list[int]:
        count._obj.value = 2
        return [5, 6]

    def bitmap(_: int, __: int, data: Any) -> int:
        given.append(bytes(data[:3]))
        return 1

    mtmd = SimpleNamespace(
        mtmd_bitmap_init=ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, kind)(
            bitmap
        ),
        mtmd_bitmap_p_ctypes=ctypes.c_void_p,
        mtmd_default_marker=lambda: b"<picture>",
        mtmd_input_text=Text,
        mtmd_input_chunks_init=lambda: 1,
        mtmd_tokenize=lambda *_: 0,
        mtmd_input_chunks_size=lambda _: 2,
        mtmd_input_chunks_get=lambda _, number: number,
        mtmd_input_chunk_get_type=lambda pointer: pointer,  # 0: a text, 1: a picture
        mtmd_input_chunk_get_tokens_text=tokens,
        mtmd_input_chunks_free=lambda _: None,
        mtmd_bitmap_free=lambda _: None,
    )
    pixels = np.full((tiny_vision.SIZE, tiny_vision.SIZE, 3), 7, dtype=np.uint8)
    with features._chunks(mtmd, 1, pixels) as chunks:
        assert [chunk.tokens for chunk in chunks] == [[5, 6], None]
    assert given == [b"\7\7\7"]
