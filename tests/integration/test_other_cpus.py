"""The real cpu wheel on other CPUs, emulated by qemu: the module that it loads, what it computes.

qemu-user 7.2 and later emulates AVX2 and nothing newer. AVX-512 is tested on a real CPU.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessions.run import smoke_input
from tests.integration.conftest import REPOSITORY
from tests.integration.installed import record

TOKENS, TYPES = 32, ("F16", "Q8_0", "Q4_K")
# Runs in qemu. The expected answers are computed outside, because that would take minutes in it.
PROGRAM = """
import sys
import numpy as np
sys.path.insert(0, {payload!r})
import llama
from llama_cpp import _backends
llama.start()
for path in {models!r}:
    with llama.model(path, 0) as loaded, llama.context(
        loaded, batch={count}, flash=True, kv="f16", threads=1, length=64
    ) as context:
        np.save(path + ".npy", llama.evaluate(context, {tokens!r}, {count}, {vocabulary}))
print(_backends.chosen)
"""


@dataclass(frozen=True)
class Models:
    """Tiny models, the tokens to evaluate, and the expected logits of each token."""

    paths: dict[str, str]
    tokens: list[int]
    answers: dict[str, Any]
    vocabulary: int
    oracle: Any


@pytest.fixture(scope="module")
def payload() -> Iterator[None]:
    """Lets the payload's modules import one another by name."""
    sys.path.insert(0, str(smoke_input.PAYLOAD))
    yield
    sys.path.remove(str(smoke_input.PAYLOAD))


@pytest.fixture(scope="module")
def models(payload: None, tmp_path_factory: pytest.TempPathFactory) -> Models:
    tiny_llama = importlib.import_module("tiny_llama")
    tiny_reference = importlib.import_module("tiny_reference")
    folder = tmp_path_factory.mktemp("models")
    paths = {name: str(folder / f"{name}.gguf") for name in TYPES}
    tokens = [int(token) for token in tiny_llama.prompt(TOKENS)]
    made = {name: tiny_llama.make(Path(path), name).weights for name, path in paths.items()}
    answers = {name: tiny_reference.forward(weights, tokens)[0] for name, weights in made.items()}
    return Models(paths, tokens, answers, tiny_llama.VOCAB, tiny_reference)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and its requirements."""
    wheel = REPOSITORY / "wheels" / "cpu" / "wheel.json"
    file = record(wheel, "wheel")["file"]
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
    subprocess.run([*words, str(wheel.with_name(file))], check=True)
    return folder


def emulated(cpu: str, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python on another CPU."""
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.fail("There is no qemu-x86_64. Install it: apt-get install qemu-user")
    python = Path(sys.executable).resolve()
    return subprocess.run(
        [qemu, "-cpu", cpu, str(python), "-X", "faulthandler", *words],
        env={"PYTHONPATH": str(site), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


CPUS = {
    "Nehalem": "sse42",
    "SandyBridge": "sandybridge",
    "Haswell": "haswell",
    "Skylake-Server": "haswell",  # qemu has no AVX-512; CPUID counts, not the name
}


def shown(done: subprocess.CompletedProcess[str]) -> str:
    """The output and exit code of a run, without qemu's messages about missing features."""
    lines = [line for line in done.stderr.splitlines() if "TCG doesn't support" not in line]
    return "\n".join([f"exit code {done.returncode}", done.stdout, *lines])


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "module"), CPUS.items(), ids=CPUS)
def test_the_module_for_a_cpu_is_loaded_and_computes_correctly(
    cpu: str, module: str, site: Path, models: Models
) -> None:
    paths: Sequence[str] = list(models.paths.values())
    text = PROGRAM.format(
        payload=str(smoke_input.PAYLOAD),
        models=paths,
        tokens=models.tokens,
        count=TOKENS,
        vocabulary=models.vocabulary,
    )
    done = emulated(cpu, site, "-c", text)
    assert done.returncode == 0, shown(done)
    assert done.stdout.split() == [module]
    numpy = importlib.import_module("numpy")
    bounds = json.loads((smoke_input.PAYLOAD / "bounds.json").read_text(encoding="utf-8"))["type"]
    for name, path in models.paths.items():
        answer = Path(path + ".npy")
        assert models.oracle.nmse(numpy.load(answer), models.answers[name]) <= bounds[name], name
        answer.unlink()  # the next CPU makes its own


@pytest.mark.slow
def test_the_doctor_names_the_modules_that_the_cpu_cannot_run(site: Path) -> None:
    done = emulated("Nehalem", site, "-m", "llama_cpp._doctor")
    assert done.returncode == 0, shown(done)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert lines["CPU module"].strip() == "sse42"
    assert lines["  can run"].strip() == "sse42, x64"
    assert "haswell" in lines["  cannot run"]
