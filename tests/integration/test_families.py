"""A defect in a model of each family is found by that family's known answers, on the CPU.

The defects are planted in the models (``tests/family_defects.py``): what a kernel would compute
that ignored a window, an attention sink, an expert's bias. The wheels of ``wheels/cpu*`` are used;
that of the default release must be there. The same file runs on a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from sessions.run import families, smoke_input
from sessions.shared import knowledge
from tests import family_defects
from tests.integration.conftest import REPOSITORY

WHEELS = sorted(path.parent.name for path in (REPOSITORY / "wheels").glob("cpu*/wheel.json"))
Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module", params=WHEELS or ["cpu"])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Version, Rows]:
    """The wheel's release, and what it computed: (family, defect or "") -> its row."""
    record = REPOSITORY / "wheels" / request.param / "wheel.json"
    if not record.is_file():
        pytest.fail("Build the cpu wheel first: nox -s wheel -- --target cpu")
    built = json.loads(record.read_text(encoding="utf-8"))["wheel"]
    folder = tmp_path_factory.mktemp("families")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, str(record.with_name(built["file"]))], check=True)
    subprocess.run(
        [*pip, "--no-deps", "--require-hashes", "-r", str(knowledge.payload_lock())], check=True
    )
    program = [str(python), "-I", str(Path(family_defects.__file__))]
    done = subprocess.run(
        [*program, str(smoke_input.PAYLOAD), str(families.FAMILIES), "0"],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    return Version(built["version"]), {(row["family"], row["what"]): row for row in rows}


@pytest.mark.slow
def test_each_familys_answers_find_what_is_planted_in_its_model(
    answers: tuple[Version, Rows],
) -> None:
    version, rows = answers
    tried = set()
    for row in families.plan(version, "all", on_gpu=False):
        name = row["family"]
        if row["type"] != "F32" or name in tried:
            continue
        tried.add(name)
        if row["known"]:  # upstream computes another model: that is found, with no defect planted
            sound = rows.get((name, ""))
            assert sound is None or sound["nmse"] > row["bound"]
            continue
        if row["late"]:
            assert "unknown model architecture" in rows[name, ""]["error"]
            continue
        assert rows[name, ""]["nmse"] <= row["bound"], name
        for what, *_ in family_defects.DEFECTS[name]:
            found = rows[name, what]
            assert found["planted"] > 0, (name, what)
            assert found["nmse"] > 10 * row["bound"], (name, what)
    facts = knowledge.load("families.toml")
    assert tried == set(facts["family"])
    # Families without a defect are those with a fault of upstream's in every release that is known.
    assert set(facts["family"]) - set(family_defects.DEFECTS) == {"gpt-oss-yarn", "deepseek2-v2"}
