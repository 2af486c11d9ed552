from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sessions.core import repair, run
from sessions.core.errors import Problem


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes of folders")
@pytest.mark.parametrize("returncode", [0, 1])
def test_the_users_umask_does_not_reach_auditwheel(
    returncode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def capture(*_: Any, **__: Any) -> run.Finished:
        seen.append(os.umask(0o022))
        return run.Finished(command=(), returncode=returncode, output="", seconds=0.0)

    monkeypatch.setattr(run, "capture", capture)
    users = os.umask(0o077)
    try:
        if returncode:
            with pytest.raises(Problem, match="auditwheel refuses"):
                repair.linux("python", tmp_path / "raw.whl", tmp_path / "out", {})
        else:
            repair.linux("python", tmp_path / "raw.whl", tmp_path / "out", {})
    finally:
        after = os.umask(users)
    assert seen == [0o022]
    assert after == 0o077
