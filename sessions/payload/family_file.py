"""Writes a tiny model of a family as a GGUF file, with the same bytes on every machine.

A family's file (``sessions/data/families``) has the header that upstream's converter wrote, the
small tensors, and the logits that Hugging Face transformers computed in float64. It does not have
the matrices: they are drawn here, each from its own seed, in the requested GGML type.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import tiny_llama
from gguf import GGMLQuantizationType as GgmlType

Array = npt.NDArray[np.float32]
Change = Callable[[str, str, bytes], bytes]  # (tensor, GGML type, its bytes) -> other bytes
ALIGNMENT = 32  # bytes; general.alignment's default in the GGUF specification
STRENGTH = 12  # length of a code in an embedding; the rest of it has a norm of sqrt(width)


@dataclass(frozen=True)
class Family:
    """The content of a family's file. ``tensors``: names, dimensions (row length first), sources.

    A tensor is ``kept`` (its float32 values are in the file) or drawn: with the deviation
    ``factor`` / sqrt(columns), and in the type ``fixed`` if it has one. ``router`` has the number
    of experts and the kind of their selection.
    """

    name: str
    pairs: int  # key-value pairs in ``header``
    header: bytes
    tensors: tuple[Mapping[str, Any], ...]
    kept: Mapping[str, Array]
    router: Mapping[str, Any] | None


@dataclass(frozen=True)
class Reference:
    """The results of transformers: some logits (or embeddings) of some of 512 tokens."""

    rows: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]


def load(path: Path) -> Family:
    """Read a family's file."""
    with np.load(path, allow_pickle=False) as data:
        spec = json.loads(bytes(data["spec"]).decode())
        kept = {n[5:]: data[n] for n in data.files if n.startswith("keep:")}
        return Family(
            spec["name"],
            spec["pairs"],
            bytes(data["header"]),
            tuple(spec["tensors"]),
            kept,
            spec["router"],
        )


def reference(path: Path, kind: str) -> Reference:
    """The reference results of a family in one type. They are stored as fp16 with a scale."""
    with np.load(path, allow_pickle=False) as data:
        values = data[f"answer:{kind}"].astype(np.float64) * data[f"scale:{kind}"].item()
        return Reference(data["rows"], data["columns"], values)


def draw(*key: str) -> tiny_llama.Draw:
    """A random generator whose seed depends only on ``key``."""
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return tiny_llama.Draw(int.from_bytes(digest[:8], "little"))


def type_of(tensor: Mapping[str, Any], kind: str) -> str:
    """The GGML type of a drawn tensor; ``Q8_0+MXFP4`` means MXFP4 for the experts."""
    rest, _, experts = kind.partition("+")
    wanted = str(
        tensor.get("fixed") or (experts if experts and "_exps" in tensor["name"] else rest)
    )
    columns = tensor["dims"][0]
    if columns % gguf.GGML_QUANT_SIZES[GgmlType[wanted]][0]:  # as llama-quantize does
        wanted = "Q8_0" if columns % 32 == 0 else "F16"
    return wanted


def blocks(family: Family, tensor: Mapping[str, Any], kind: str) -> npt.NDArray[np.generic]:
    """The blocks of a drawn tensor, in the type that ``type_of`` names."""
    wanted, columns = type_of(tensor, kind), tensor["dims"][0]
    rows = int(np.prod(tensor["dims"])) // columns
    made = tiny_llama.blocks(
        draw(family.name, wanted, tensor["name"]), GgmlType[wanted], rows, columns
    )
    if wanted == "F32":
        made = (made * np.float32(tensor.get("factor", 1.0))).astype(np.float32)
    if family.router and tensor["name"] == "token_embd.weight":
        made = (made + coded(family.name, family.router, rows, columns)).astype(np.float32)
    return np.ascontiguousarray(made)


def codes(family: str, experts: int, width: int) -> Array:
    """A direction of length 1 for each expert; the directions are nearly orthogonal.

    The rows of a router are these directions, and a token's embedding contains those of its
    experts. So no token is near a tie, where a rounding error would choose another expert.
    """
    signs = draw(family, "codes").bytes(experts, width) & 1
    found: Array = (signs.astype(np.float32) * 2 - 1) / np.float32(width**0.5)
    return found


def coded(family: str, router: Mapping[str, Any], vocabulary: int, width: int) -> Array:
    """The part of the embeddings that selects the experts (vocabulary x width)."""
    strengths = wishes(family, router, vocabulary) * np.float32(router.get("strength", STRENGTH))
    # Sums of a few signs are exact in float32 in any order.
    whole = np.rint(strengths * 64).astype(np.int64) @ np.rint(
        codes(family, router["experts"], width) * width**0.5
    ).astype(np.int64)
    found: Array = whole.astype(np.float32) / np.float32(64 * width**0.5)
    return found


def wishes(family: str, router: Mapping[str, Any], vocabulary: int) -> Array:
    """How strongly each token selects each expert (vocabulary x experts).

    ``plain``: as many experts as are used, equally. ``bias``: even experts have a router bias of
    +0.1 and odd ones of -0.1; every other token selects one expert fewer and, more weakly, one of
    each kind, so that the bias decides. ``groups``: two experts in each of two groups of four, and
    more strongly a single one in a third group, which must not be used.
    """
    experts, used = router["experts"], router["used"]
    order = np.argsort(_numbers(draw(family, "wishes"), vocabulary, experts), axis=1, kind="stable")
    found = np.zeros((vocabulary, experts), np.float32)
    for token, ranked in enumerate(order):
        if router["kind"] == "groups":
            groups = list(dict.fromkeys(int(expert) // 4 for expert in ranked))
            for group in groups[:2]:
                found[token, [e for e in ranked if e // 4 == group][:2]] = 1
            found[token, next(e for e in ranked if e // 4 == groups[2])] = 1.25
        elif router["kind"] == "bias" and token % 2:
            even = [expert for expert in ranked if expert % 2 == 0]
            found[token, even[: used - 1]] = 1
            found[token, [even[used - 1], next(e for e in ranked if e % 2)]] = 0.625
        else:
            found[token, ranked[:used]] = 1
    return found


def _numbers(drawn: tiny_llama.Draw, *shape: int) -> npt.NDArray[np.int64]:
    many = drawn.bytes(*shape, 4).astype(np.int64)
    found: npt.NDArray[np.int64] = many @ np.array([1, 256, 65536, 16777216])
    return found


def write(path: Path, family: Family, kind: str, change: Change | None = None) -> str:
    """Write the file and return its sha256. ``change`` may plant a defect in a tensor's bytes."""
    infos, parts, at = [], [], 0
    for tensor in family.tensors:
        name = tensor["name"]
        if tensor["kept"]:
            wanted, data = "F32", family.kept[name].astype("<f4").tobytes()
        else:
            wanted, data = type_of(tensor, kind), blocks(family, tensor, kind).tobytes()
        if change:
            data = change(name, wanted, data)
        infos.append(_info(name, tensor["dims"], int(GgmlType[wanted]), at))
        parts.append(data)
        at += len(data) + -len(data) % ALIGNMENT
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), family.pairs) + family.header
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for part in (head + b"".join(infos), *parts):
            padded = part + b"\0" * (-len(part) % ALIGNMENT)
            stream.write(padded)
            digest.update(padded)
    return digest.hexdigest()


def compared(found: npt.NDArray[np.floating], wanted: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The NMSE (0 is exact), that of the worst token, and whether every number is finite."""
    squared = (found.astype(np.float64) - wanted) ** 2
    each = squared.sum(axis=1) / (wanted**2).sum(axis=1)
    return {
        "nmse": float(squared.sum() / (wanted**2).sum()),
        "worst": float(each.max()),
        "tokens": len(wanted),
        "finite": bool(np.isfinite(found).all()),
    }


def defect(plant: list[Any], family: Family, planted: list[str]) -> Change:
    """A ``Change`` that plants a defect, and adds the names of changed tensors to ``planted``."""
    part, how = plant
    experts = {tensor["name"]: tensor["dims"][-1] for tensor in family.tensors}

    def change(name: str, kind: str, data: bytes) -> bytes:
        if part not in name:
            return data
        if how == "swap":
            one = len(data) // experts[name]
            made = data[one : 2 * one] + data[:one] + data[2 * one :]
        elif kind == "F32":
            made = (np.frombuffer(data, "<f4") * np.float32(how)).tobytes()
        else:
            return data
        if made != data:
            planted.append(name)
        return made

    return change


def _info(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    text = name.encode()
    return (
        struct.pack("<Q", len(text))
        + text
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", kind, offset)
    )
