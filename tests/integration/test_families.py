"""The known answers of each model family find defects in its model, on the CPU.

The defects (``tests/family_defects.py``) are those of a kernel that ignores a window, an attention
sink or an expert's bias. The wheels in ``wheels/cpu*`` are used; that of the default release must
exist. tests/gpu runs the same file on a GPU.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from sessions.run import families, smoke_input
from sessions.shared import knowledge
from tests import family_defects
from tests.integration import installed

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module", params=installed.CPU_WHEELS or ["cpu"])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Version, Rows]:
    """The wheel's release, and its results: (family, defect or "") -> row."""
    version, wheel = installed.wheel(request.param)
    python = installed.venv(tmp_path_factory.mktemp("families") / "venv", wheel)
    installed.install_payload(python)
    program = [str(python), "-I", str(Path(family_defects.__file__))]
    done = subprocess.run(
        [*program, str(smoke_input.PAYLOAD), str(families.FAMILIES), "0"],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    return Version(version), {(row["family"], row["what"]): row for row in rows}


@pytest.mark.slow
def test_the_answers_of_each_family_find_its_defects(
    answers: tuple[Version, Rows],
) -> None:
    version, rows = answers
    tried = set()
    for row in families.plan(version, "all", on_gpu=False):
        name = row["family"]
        if row["type"] != "F32" or name in tried:
            continue
        tried.add(name)
        if row["known"]:  # upstream computes it wrong, which is found without a planted defect
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
    # Families without a defect have a known fault of upstream in every release.
    assert set(facts["family"]) - set(family_defects.DEFECTS) == {"gpt-oss-yarn", "deepseek2-v2"}
