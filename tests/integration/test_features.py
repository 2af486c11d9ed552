"""The built cpu wheel: its features and planted defects, upstream's tests, the server extra."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import installed
from tests.integration.conftest import REPOSITORY

FEATURES = ["vision", "text-embeddings", "lora", "threads"]
PAYLOAD = REPOSITORY / "sessions" / "payload"
KEY = "a key"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a venv with the wheel, its server extra, and what the tests import."""
    base = installed.record(REPOSITORY / "build" / "cpu" / "probe.json", "probe")["python"]["path"]
    _, wheel = installed.wheel("cpu")
    needs = [f"{wheel}[server]", "openai", "pytest", "scipy", "huggingface-hub"]
    python = installed.venv(tmp_path_factory.mktemp("cpu") / "venv", *needs, base=base)
    installed.install_payload(python)
    return str(python)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's tests and vocabularies from its sdist."""
    folder, (version, _) = tmp_path_factory.mktemp("sdist"), installed.wheel("cpu")
    parts = ("tests/", "vendor/llama.cpp/models/ggml-vocab-")
    installed.unpack(version, folder, lambda name: name.startswith(parts))
    return folder


# Runs in the wheel's venv, with the payload's functions. It prints the names of the checks, and the
# failed checks {id: evidence} for "" (nothing is damaged) and for each damaged feature.
PROGRAM = """
import concurrent.futures, importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
import feature_checks
spec = importlib.util.spec_from_file_location("payload", sys.argv[1] + "/__main__.py")
payload = importlib.util.module_from_spec(spec)
spec.loader.exec_module(payload)
jobs = {"": json.loads(sys.argv[2])}
names = feature_checks.names(jobs[""])
for name in names:
    folder = jobs[""]["folder"] + "/" + name
    payload.Path(folder).mkdir(parents=True)
    jobs[name] = {**jobs[""], "folder": folder, "damaged": [name]}
pairs = [*(("", name) for name in names), *((name, name) for name in names)]
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    parts = pool.map(lambda p: payload.run_child(jobs[p[0]], "feature", type=p[1]), pairs)
    parts = dict(zip(pairs, parts))
sound = {name: parts["", name] for name in names}
failed = {}
for damaged, job in jobs.items():
    found = {**sound, **({damaged: parts[damaged, damaged]} if damaged else {})}
    checks = feature_checks.evaluate(job, {**found, "device": {"error": None}})
    failed[damaged] = {c["id"]: c["evidence"] for c in checks if c["status"] == "fail"}
print(json.dumps([names, failed]))
"""


def test_each_feature_works_on_the_cpu_and_its_check_finds_a_defect(
    python: str, sdist: Path, tmp_path: Path
) -> None:
    job = {
        "folder": str(tmp_path), "jit_cache": str(tmp_path / "jit"), "layers": 0, "threads": 1,
        "visible": "-1", "timeout": 600, "vectors": str(sdist / "vendor/llama.cpp/models"),
    }  # fmt: skip
    words = [python, "-I", "-c", PROGRAM, str(PAYLOAD), json.dumps(job)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names, failed = json.loads(done.stdout)
    assert names == [*FEATURES, "tokenizers"]
    assert failed.pop("") == {}
    assert {damaged: list(checks) for damaged, checks in failed.items()} == {
        name: [name] for name in names
    }


def test_upstreams_tests_without_downloads_pass(python: str, sdist: Path) -> None:
    env = {"HF_HUB_OFFLINE": "1", "HOME": str(sdist)}
    # With -P, the folder is not on sys.path.
    words = [python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        [*words, "-k", "not real_model and not real_llama"],
        cwd=sdist, env=env, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "8 passed, 3 deselected" in done.stdout


@contextlib.contextmanager
def server(python: str, folder: Path) -> Iterator[str]:
    """A server with a tiny model; yields its address."""
    make = f"import sys; sys.path.insert(0, {str(PAYLOAD)!r}); import tiny_llama, pathlib; "
    make += f"tiny_llama.make(pathlib.Path({str(folder / 'tiny.gguf')!r}), 'F16')"
    subprocess.run([python, "-I", "-c", make], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", str(folder / "tiny.gguf"), "--model_alias", "tiny", "--embedding", "True"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "512", "--api_key", KEY]
    env = {"HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [python, "-I", "-m", "llama_cpp.server", *words], stdout=log, stderr=log, env=env
        )
        try:
            for _ in range(600):
                assert process.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=5).close()
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


# Runs in the wheel's venv, which has the openai package. It prints one line of JSON.
CLIENT = """
import json, sys, concurrent.futures, openai
url, key = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)
found = {}
text = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "temperature": 0}
one = client.completions.create(**text).choices[0].text
parts = client.completions.create(stream=True, **text)
found["streamed"] = "".join(part.choices[0].text for part in parts)
found["one"] = one
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(client.completions.create, **text) for _ in range(8)]
    found["at_once"] = sorted({job.result().choices[0].text for job in jobs})
chat = {"model": "tiny", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 60,
        "temperature": 0}
grammar = {"extra_body": {"grammar": 'root ::= "yes" | "no"'}}
found["grammar"] = client.chat.completions.create(**chat, **grammar).choices[0].message.content
schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
form = {"extra_body": {"response_format": {"type": "json_object", "schema": schema}}}
found["schema"] = client.chat.completions.create(**chat, **form).choices[0].message.content
tool = {"type": "function", "function": {"name": "answer", "parameters": schema}}
choice = {"type": "function", "function": {"name": "answer"}}
reply = client.chat.completions.create(**chat, tools=[tool], tool_choice=choice).choices[0].message
found["tool"] = reply.tool_calls[0].function.arguments
vector = client.embeddings.create(model="tiny", input="hello", encoding_format="float")
found["embedding"] = [len(token) for token in vector.data[0].embedding]
found["models"] = [model.id for model in client.models.list().data]
for name, call in {
    "wrong_key": lambda: openai.OpenAI(base_url=url, api_key="no", max_retries=0).models.list(),
    "too_long": lambda: client.completions.create(**{**text, "prompt": "hello " * 600}),
}.items():
    try:
        call()
    except openai.APIStatusError as error:
        found[name] = error.status_code
print(json.dumps(found))
"""


def test_the_server_extra_answers_the_openai_client(python: str, tmp_path: Path) -> None:
    with server(python, tmp_path) as url:
        done = subprocess.run(
            [python, "-I", "-c", CLIENT, url, KEY], check=False, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()[-3000:]
    found = json.loads(done.stdout)
    assert found["one"] == found["streamed"]
    assert found["one"]
    assert found["at_once"] == [found["one"]]
    assert found["grammar"] in ("yes", "no")
    assert set(json.loads(found["schema"])) == set(json.loads(found["tool"])) == {"ok"}
    assert found["embedding"] == [512] * 5  # a text model has no pooling: one vector per token
    assert found["models"] == ["tiny"]
    assert (found["wrong_key"], found["too_long"]) == (401, 400)
