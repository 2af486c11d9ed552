"""The checks of smoke run with the CUDA wheel on a machine without a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sessions.run import smoke_input
from tests import fakes
from tests.integration import installed
from tests.integration.conftest import REPOSITORY

# Runs in the wheel's venv, with the payload's functions: the checks that take seconds.
PROGRAM = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
import smoke_checks
spec = importlib.util.spec_from_file_location("payload", sys.argv[1] + "/__main__.py")
payload = importlib.util.module_from_spec(spec)
spec.loader.exec_module(payload)
job = {**json.loads(sys.argv[2]), "cases": len(payload.child.CASES)}
found = {
    "device": payload.run_child(job, "device"),
    "answers": {name: payload.answers(job, name) for name in job["types"]},
}
checks = [smoke_checks.device(job, found["device"], False)]
checks += [smoke_checks.known_answers(job, found), smoke_checks.tokens(found)]
checks.append(smoke_checks.repeats(found))
print(json.dumps([found["device"]["offload"], checks]))
"""


@pytest.mark.slow
def test_the_cuda_wheel_computes_on_the_cpu_without_a_driver_and_with_a_failing_one(
    tmp_path: Path,
) -> None:
    """The toolkit's stub of the driver's library returns an error for each call."""
    version, wheel = installed.wheel("rtx50")
    build = REPOSITORY / "build" / "rtx50"
    toolkit = Path(installed.record(build / "toolkit.json", "toolkit")["root"])
    base = installed.record(build / "probe.json", "probe")["python"]["path"]
    venv = tmp_path / "venv"
    pure = ["cuda-pathfinder", "numpy", "typing-extensions", "jinja2", "markupsafe", "diskcache"]
    python = installed.venv(venv, "--no-deps", wheel, *pure, base=base)
    installed.install_payload(python)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "nvidia").mkdir()
    (site / "nvidia" / "cu13").symlink_to(toolkit)
    stub = tmp_path / "stub"
    stub.mkdir()
    shutil.copy(toolkit / "lib" / "stubs" / "libcuda.so", stub / "libcuda.so.1")
    job = {
        **smoke_input.job(fakes.spec(), file=wheel.name, sha256="", version=version),
        "types": ["F16", "Q4_K", "IQ3_S"],
        "layers": 0,
        "visible": "-1",
        "jit_cache": str(tmp_path / "jit"),
        "venv": str(venv),
    }
    for name, env in (("refuses", {"LD_LIBRARY_PATH": str(stub)}), ("none", {})):
        folder = tmp_path / name
        folder.mkdir()
        words = ["-I", "-c", PROGRAM, str(smoke_input.PAYLOAD)]
        done = subprocess.run(
            [str(python), *words, json.dumps({**job, "folder": str(folder)})],
            env={"HOME": str(tmp_path), **env},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        offload, checks = json.loads(done.stdout.splitlines()[-1])
        assert not offload
        assert {check["id"]: check["evidence"] for check in checks} == dict.fromkeys(
            ("device", "known-answers", "greedy-tokens", "repeatable"), ""
        )
        assert "48 cases of 3 types" in checks[1]["summary"]
