"""Plants defects in the models of families, as a kernel with an error would compute them.

Run in a venv that has a wheel, gguf and numpy, on the CPU (LAYERS 0) or a GPU (999):

    python -I tests/family_defects.py PAYLOAD FAMILIES LAYERS [FAMILY ...]

PAYLOAD and FAMILIES are folders of a checkout or of an unpacked bundle. It prints a line of JSON
for each model, without a defect and with each one: the largest NMSE of plain and flash attention.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# Family -> (defect, place, change): a key of the header and another value; or a part of the names
# of tensors (a space ends a name) and a factor, a value for all numbers, or "swap" for exchanged
# experts. The first defect of a family is in a part that other families lack.
DEFECTS: dict[str, list[tuple[str, str, Any]]] = {
    "llama3": [("frequency factors of RoPE 5 % off", "rope_freqs", 1.05)],
    "qwen2": [("no bias of the keys and queries", "attn_k.bias", 0.0)],
    "qwen3moe": [
        ("three experts of four", "qwen3moe.expert_used_count", 3),
        ("norm of the queries 10 % off", "attn_q_norm", 1.1),
        ("two experts exchanged", "ffn_up_exps", "swap"),
    ],
    "mixtral": [
        ("one expert of two", "llama.expert_used_count", 1),
        ("two experts exchanged", "ffn_gate_exps", "swap"),
    ],
    "gemma2": [
        ("no soft cap of the attention", "gemma2.attn_logit_softcapping", 50.0),
        ("no soft cap of the logits", "gemma2.final_logit_softcapping", 50.0),
        ("a window of 96 tokens for 64", "gemma2.attention.sliding_window", 96),
    ],
    "gemma3": [("a window of 96 tokens for 64", "gemma3.attention.sliding_window", 96)],
    "gpt-oss": [
        ("no attention sinks", "attn_sinks", ("fill", -1e9)),
        ("no bias of the experts", "ffn_gate_exps.bias", 0.0),
        ("a window of 128 tokens for 64", "gpt-oss.attention.sliding_window", 128),
        ("YaRN's factor 16 for 32", "gpt-oss.rope.scaling.factor", 16.0),
        # The biases have two dimensions and the matrices three, so both must be changed.
        ("two experts exchanged, with their biases", "ffn_down_exps", "swap"),
    ],
    "deepseek2": [
        ("no bias of the router", "exp_probs_b", 0.0),
        ("scale of the experts 2 for 2.5", "deepseek2.expert_weights_scale", 2.0),
        ("norm of the latent keys 10 % off", "attn_kv_a_norm", 1.1),
    ],
    "deepseek2-groups": [
        ("three groups of experts for two", "deepseek2.expert_group_used_count", 3)
    ],
    "phi3": [("base of RoPE 10 % off, at a head size of 96", "phi3.rope.freq_base", 9000.0)],
    "mamba2": [
        ("decay of the state 10 % off", "ssm_a ", 1.1),
        ("convolution 10 % off", "ssm_conv1d.weight", 1.1),
        ("no direct path", "ssm_d ", 0.0),
    ],
    "mamba": [("decay of the state 10 % off, 16 numbers per channel", "ssm_a ", 1.1)],
    "falcon-h1-256": [("decay of the state 10 % off, 256 numbers per head", "ssm_a ", 1.1)],
    "phi2": [("rotates all of a head of 80", "phi2.rope.dimension_count", 80)],
    "gemma4": [("a window of 96 tokens for 64", "gemma4.attention.sliding_window", 96)],
    "falcon-h1": [("decay of the state 10 % off beside attention", "ssm_a ", 1.1)],
    "llama4": [
        ("two experts exchanged, one used", "ffn_up_exps", "swap"),
        ("base of RoPE 10 % off in three layers of four", "llama4.rope.freq_base", 450000.0),
    ],
    "granite-hybrid": [
        ("scale of the attention 0.2 for 0.1", "granitehybrid.attention.scale", 0.2),
        ("scale of the logits", "granitehybrid.logit_scale", 1.0),
    ],
    "bert": [("no bias of the queries, attention in both directions", "attn_q.bias", 0.0)],
    "lfm2": [("short convolution 10 % off", "shortconv.conv", 1.1)],
    "glm4moe": [
        ("rotates all of a head", "glm4moe.rope.dimension_count", 128),
        ("scale of the experts 1 for 1.5", "glm4moe.expert_weights_scale", 1.0),
    ],
    "qwen3next": [("decay of the delta net 10 % off", "ssm_a ", 1.1)],
    "qwen35": [("decay of the delta net 10 % off", "ssm_a ", 1.1)],
}


def plant(path: Path, where: str, how: Any) -> int:
    """Change a GGUF file in place; returns the number of changed numbers or tensors."""
    import gguf

    reader = gguf.GGUFReader(path, "r+")
    field = reader.get_field(where)
    if field is not None:
        before = [field.parts[at][0] for at in field.data]
        for at in field.data:
            field.parts[at][0] = how
        return int(sum(one != how for one in before))
    done = 0
    for tensor in reader.tensors:
        if where not in f"{tensor.name} ":
            continue
        if how == "swap":
            tensor.data[[0, 1]] = tensor.data[[1, 0]]
        elif isinstance(how, tuple):
            tensor.data[:] = how[1]
        else:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            tensor.data[:] *= how
        done += 1
    return done


def answer(payload: Any, path: Path, wanted: Any, encoder: bool, layers: int) -> float:
    """The largest NMSE of 512 tokens in one batch, with plain and with flash attention."""
    families, family_file, tiny_llama = payload
    found = []
    with families.model(path, layers, "") as loaded:
        for flash in (False, True):
            way = {"batch": 512, "flash": flash}
            job = {"threads": 2, "encoder": encoder}
            with families.context(loaded, way, job, set()) as made:
                width = len(wanted.columns) if encoder else tiny_llama.VOCAB
                embedding = int(families.llama_cpp.llama_model_n_embd(loaded))
                width = embedding if encoder else tiny_llama.VOCAB
                logits = families.evaluate(made, tiny_llama.prompt(512), 512, width, encoder)
            part = logits[wanted.rows][:, wanted.columns]
            found.append(family_file.compared(part, wanted.values)["nmse"])
    return float(max(found))


def main(payload: str, folder: str, layers: str, *names: str) -> None:
    """Print the NMSE of each model with no defect, and with each one."""
    sys.path.insert(0, payload)
    import family_answers
    import family_file
    import llama
    import tiny_llama

    llama.start()
    for name in names or DEFECTS:
        file = Path(folder) / f"{name}.npz"
        family, wanted = family_file.load(file), family_file.reference(file, "F32")
        for what, where, how in [("", "", None), *DEFECTS[name]]:
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "model.gguf"
                family_file.write(path, family, "F32")
                row: dict[str, Any] = {"family": name, "what": what}
                try:
                    row["planted"] = plant(path, where, how) if what else 0
                    modules = (family_answers, family_file, tiny_llama)
                    row["nmse"] = answer(modules, path, wanted, name == "bert", int(layers))
                except llama.Refused as refusal:
                    row["error"] = str(refusal)
            print("@" + json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
