"""Writing a family's GGUF file, its router, its types, and planted defects."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from sessions.payload import family_file as module
from sessions.run import families
from sessions.shared import knowledge

SMALLEST = "lfm2"


@pytest.fixture
def family() -> Any:
    return module.load(families.FAMILIES / f"{SMALLEST}.npz")


def test_the_written_file_has_the_expected_digest(family: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    assert module.write(path, family, "Q4_K") == families.digests()[SMALLEST]["Q4_K"]
    reader = gguf.GGUFReader(path)
    assert str(reader.fields["general.architecture"].contents()) == "lfm2"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q4_K"
    assert kinds["token_embd_norm.weight"] == "F32"


def test_a_planted_defect_changes_the_file(family: Any, tmp_path: Path) -> None:
    def other(name: str, _kind: str, data: bytes) -> bytes:
        return data[::-1] if name == "token_embd_norm.weight" else data

    found = module.write(tmp_path / "model.gguf", family, "Q4_K", other)
    assert found != families.digests()[SMALLEST]["Q4_K"]


def test_the_reference_results_have_the_size_of_logits() -> None:
    found = module.reference(families.FAMILIES / f"{SMALLEST}.npz", "F32")
    assert found.values.shape == (len(found.rows), len(found.columns)) == (48, 256)
    assert 0.3 < found.values.std() < 3
    assert found.rows[-1] == 511
    assert set(range(63, 66)) <= set(found.rows.tolist())  # around a window of 64


@pytest.mark.parametrize("kind", ["plain", "bias", "groups"])
def test_no_token_is_near_a_tie_of_its_router(kind: str) -> None:
    """The embeddings in the direction of each expert: the selected experts are far ahead."""
    router = {"experts": 16, "used": 4, "kind": kind}
    wishes = module.wishes("x", router, 512)
    assert set((wishes > 0).sum(axis=1)) <= {4, 5}
    found = module.coded("x", router, 512, 512) @ module.codes("x", 16, 512).T
    assert np.abs(found - 12 * wishes).max() < 6  # the directions are not quite at right angles
    if kind == "plain":
        ranked = np.sort(found, axis=1)
        assert (ranked[:, -4] - ranked[:, -5]).min() > 4
    if kind == "groups":
        assert {tuple(sorted(set((np.flatnonzero(w) // 4).tolist()))) for w in wishes} >= {
            (0, 1, 2)
        }
        assert all(len(set((np.flatnonzero(w) // 4).tolist())) == 3 for w in wishes)
    if kind == "bias":
        assert all(
            (np.flatnonzero(w == 0.625) % 2).tolist() in ([0, 1], [1, 0]) for w in wishes[1::2]
        )


def test_the_types_of_experts_and_of_rows_that_do_not_fit() -> None:
    def of(name: str, columns: int, kind: str, **more: Any) -> str:
        found: str = module.type_of({"name": name, "dims": [columns, 8], **more}, kind)
        return found

    assert of("blk.0.ffn_up_exps.weight", 512, "Q8_0+MXFP4") == "MXFP4"
    assert of("blk.0.attn_q.weight", 512, "Q8_0+MXFP4") == "Q8_0"
    assert of("blk.0.attn_k_b.weight", 128, "Q4_K") == "Q8_0"
    assert of("blk.0.attn_k_b.weight", 100, "Q4_K") == "F16"
    assert of("token_embd.weight", 512, "Q4_K", fixed="F32") == "F32"


def test_a_file_has_no_dates_and_only_arrays() -> None:
    for path in families.FAMILIES.glob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            spec = bytes(np.load(archive.open("spec.npy"), allow_pickle=False))
        assert json.loads(spec)["name"] == path.stem


def test_the_router_in_a_file_is_that_of_the_table() -> None:
    """After a change of families.toml, the file must be made again."""
    rows = knowledge.load("families.toml")["family"]
    for path in families.FAMILIES.glob("*.npz"):
        assert module.load(path).router == rows[path.stem].get("router")


# ---- comparing, and planted defects --------------------------------------------------------------


def test_the_error_of_all_tokens_and_of_the_worst_one() -> None:
    wanted = np.array([[1.0, 0.0], [0.0, 2.0]])
    found = module.compared(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), wanted)
    assert found == {"nmse": 0.2, "worst": 0.25, "tokens": 2, "finite": True}
    assert not module.compared(np.array([[np.nan, 0], [0, 2]], np.float32), wanted)["finite"]


def test_a_defect_changes_only_the_named_tensor() -> None:
    tensors = tuple({"name": name, "dims": dims} for name, dims in
                    (("blk.0.ffn_up_exps.weight", [4, 2, 3]), ("blk.0.ssm_a", [4])))  # fmt: skip
    family = module.Family("x", 0, b"", tensors, {}, None)
    data = np.arange(24, dtype="<f4").tobytes()
    planted: list[str] = []
    swap = module.defect(["ffn_up_exps", "swap"], family, planted)
    found = np.frombuffer(swap("blk.0.ffn_up_exps.weight", "F32", data), "<f4").reshape(3, 8)
    assert found[:, 0].tolist() == [8, 0, 16]  # the first two of three experts
    assert swap("blk.0.ssm_a", "F32", data[:16]) == data[:16]
    assert planted == ["blk.0.ffn_up_exps.weight"]
    scale = module.defect(["ssm_a", 2.0], family, planted)
    assert np.frombuffer(scale("blk.0.ssm_a", "F32", data[:16]), "<f4").tolist() == [0, 2, 4, 6]
    assert scale("blk.0.ssm_a", "Q8_0", data[:16]) == data[:16]
