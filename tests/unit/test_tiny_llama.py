"""The tiny model: its bytes, the size of its weights, its prompt and its vocabulary."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlType

from sessions.payload import smoke_checks, tiny_llama

# SHA-256 of the file. With another value, reports of different machines are about different models,
# and every bound must be measured again.
GOLDEN = {
    "F32": "dae94f5f4e4616c15e3694531d9ff186826a2c02fe7c5814d3fb08e4ee21d350",
    "F16": "e9321a06062d23230faaa7ef9a19b3e54c80fcfa433d94680b0b5ef7d7853d50",
    "Q4_K": "e005d2457e1a70c5aff00f1bd0f00b3dd5087c15444ca4bdd0f10098c5f538ac",
    "Q6_K": "75ea26cd81bd4890e18084ec6c23a38ba3baf69fae005a654d6a174d93258a35",
    "IQ3_S": "3843d57553c652599a1ec703076d6df149c6443520e63b432242acac90d92dc2",
    "IQ1_M": "e8a6da539164d51b731fcca132f91fa88d8c108c9feda9aa1bf64df26373201f",
    "MXFP4": "a4bbeab298d7290dc6a5223c8ecaa3853b43e1e29e7e9a5e92f59ed426858d2f",
    "NVFP4": "5b45156edcfab75f2beb4b732400db86ecd07b85a7c850c2466e74a3294ae083",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tiny_llama.TinyModel]:
    """The F16 model and its file."""
    path = tmp_path_factory.mktemp("tiny") / "model.gguf"
    return path, tiny_llama.make(path, "F16")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_file_of_a_type_has_the_same_bytes(name: str, tmp_path: Path) -> None:
    assert tiny_llama.write(tmp_path / "x.gguf", name) == GOLDEN[name]
    assert hashlib.sha256((tmp_path / "x.gguf").read_bytes()).hexdigest() == GOLDEN[name]


def test_the_larger_model_has_another_shape_and_repeats_its_rows(tmp_path: Path) -> None:
    path, weights = tmp_path / "x.gguf", dict[str, tiny_llama.Array]()
    shape = tiny_llama.Shape(layers=1, embd=512, heads=4, kv_heads=2, ff=1024, drawn=64)
    digest = tiny_llama.write(path, "Q4_K", shape=shape, weights=weights)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {name.split(".")[1] for name in weights if name.startswith("blk.")} == {"0"}
    assert weights["blk.0.ffn_up.weight"].shape == (1024, 512)
    assert weights["blk.0.attn_k.weight"].shape == (256, 512)
    up = weights["blk.0.ffn_up.weight"]
    assert np.array_equal(up[:64], up[64:128])
    fields = gguf.GGUFReader(path).fields
    assert fields["llama.rope.dimension_count"].contents() == 128
    assert fields["llama.attention.head_count_kv"].contents() == 2


def test_the_larger_model_is_larger_than_the_caches_of_most_cpus() -> None:
    s = tiny_llama.LARGE
    kv = s.kv_heads * s.head
    weights = s.layers * (2 * s.embd * s.embd + 2 * s.embd * kv + 3 * s.embd * s.ff)
    assert weights * 144 / 256 > 128 << 20  # bytes in Q4_K
    assert s.embd % s.drawn == s.ff % s.drawn == kv % s.drawn == 0


def test_weights_depend_on_the_seed() -> None:
    one = tiny_llama.blocks(tiny_llama.Draw(1), GgmlType.F16, 4, 256)
    two = tiny_llama.blocks(tiny_llama.Draw(2), GgmlType.F16, 4, 256)
    assert not np.array_equal(one, two)
    assert np.array_equal(one, tiny_llama.blocks(tiny_llama.Draw(1), GgmlType.F16, 4, 256))


def test_each_type_has_a_bound() -> None:
    assert list(tiny_llama.TYPES) == list(smoke_checks.BOUNDS["type"])


@pytest.mark.parametrize("columns", [tiny_llama.EMBD, tiny_llama.FF])
@pytest.mark.parametrize("name", tiny_llama.TYPES)
def test_weights_of_every_type_have_the_expected_deviation(name: str, columns: int) -> None:
    # So that logits are near N(0, 1). Larger ones overflow fp16 in the tensor-core kernels; ones
    # near zero would hide an error.
    kind = GgmlType[name]
    data = tiny_llama.blocks(tiny_llama.Draw(3), kind, 64, columns)
    values = tiny_llama.dequantize(data, kind)
    assert values.size == 64 * columns
    assert np.isfinite(values).all()
    assert np.std(values) * columns**0.5 == pytest.approx(1, abs=0.2)
    assert abs(np.mean(values)) * columns**0.5 < 0.2


@pytest.mark.parametrize("name", sorted({*tiny_llama.SCALES, "IQ1_M", "NVFP4"}))
def test_drawn_blocks_use_all_bits(name: str) -> None:
    # With a constant byte, a part of the kernel would not be tested. Scales are set separately.
    kind = GgmlType[name]
    data = tiny_llama.blocks(tiny_llama.Draw(3), kind, 64, 512)
    blocks = data.reshape(-1, gguf.GGML_QUANT_SIZES[kind][1])
    ranges = blocks.max(axis=0).astype(int) - blocks.min(axis=0)
    assert np.count_nonzero(ranges < 128) <= 10


def test_the_file_has_the_weights_of_the_reference(
    made: tuple[Path, tiny_llama.TinyModel],
) -> None:
    path, model = made
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert tensors.keys() == model.weights.keys()
    for name, tensor in tensors.items():
        stored = np.asarray(tensor.data, dtype=np.float32)
        assert np.array_equal(stored, model.weights[name]), name


def test_only_matrices_have_the_type(
    made: tuple[Path, tiny_llama.TinyModel],
) -> None:
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(made[0]).tensors}
    plain = {name for name, kind in kinds.items() if kind == "F32"}
    norms = {name for name in kinds if "norm" in name}
    assert plain == {"token_embd.weight", *norms}
    assert set(kinds.values()) == {"F32", "F16"}


def test_the_widths_are_multiples_of_every_block_size() -> None:
    for name in tiny_llama.TYPES:
        size, _ = gguf.GGML_QUANT_SIZES[GgmlType[name]]
        assert tiny_llama.EMBD % size == tiny_llama.FF % size == 0


@pytest.mark.parametrize("length", [1, 16, 512])
def test_a_prompt_has_a_beginning_and_ordinary_tokens(length: int) -> None:
    tokens = tiny_llama.prompt(length)
    assert len(tokens) == length
    assert tokens[0] == 1
    assert all(259 <= token < tiny_llama.VOCAB for token in tokens[1:])
    assert {type(token) for token in tokens} == {int}  # bindings of forks accept no other type


def test_a_prompt_depends_on_the_seed() -> None:
    assert tiny_llama.prompt(64) == tiny_llama.prompt(64)
    assert tiny_llama.prompt(64) != tiny_llama.prompt(64, 8)
    assert [int(token) for token in tiny_llama.prompt(6)] == [1, 306, 429, 297, 346, 306]


def test_the_vocabulary_has_every_byte_and_no_piece_twice() -> None:
    # So every text can be tokenized and converted back.
    tokens, kinds = tiny_llama.vocabulary()
    assert len(tokens) == len(kinds) == len(set(tokens)) == tiny_llama.VOCAB
    assert tokens[3:259] == [f"<0x{n:02X}>".encode() for n in range(256)]
    assert kinds[:3] == [2, 3, 3]
    assert set(kinds[3:259]) == {6}
    assert set(kinds[259:]) == {1}
