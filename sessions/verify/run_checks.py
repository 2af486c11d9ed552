"""Runs all checks of a wheel's facts against a target. A check lists every problem it finds.

A check fails if the facts that it needs are missing, and if it raises an exception.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from sessions.shared.check_result import Check, CheckGroup
from sessions.shared.errors import REPORT
from sessions.verify import checks_file, checks_gpu_code, checks_libraries, checks_python
from sessions.verify.check_input import Case


def check_wheel(case: Case, bugs: dict[str, str] | None = None) -> tuple[CheckGroup, ...]:
    """The results of all checks, in groups.

    ``bugs`` gets the traceback of each check that raised an exception, by its id.
    """
    if not case.facts.members:  # the file could not be read
        return (CheckGroup("The file", (_run(checks_file.archive, case, bugs),)),)
    file, device, host = checks_file, checks_gpu_code, checks_libraries
    groups = {
        "The file": (
            file.archive, file.record, file.metadata, file.layout, checks_python.python_files,
            file.size, file.sbom, file.reproducible,
        ),
        "Device code": (device.gpu_code, device.ptx, device.gpu_features),
        "Host code": (
            host.libraries, host.imports, host.api, host.cpu_baseline, host.paths,
            host.platform_tag,
        ),
        "Its build": (file.loader, file.freshness),
    }  # fmt: skip
    return tuple(
        CheckGroup(name, tuple(_run(check, case, bugs) for check in checks))
        for name, checks in groups.items()
    )


def _run(check: Callable[[Case], Check], case: Case, bugs: dict[str, str] | None) -> Check:
    try:
        return check(case)
    except Exception as error:
        id_ = check.__name__.replace("_", "-")
        if bugs is not None:
            bugs[id_] = traceback.format_exc()
        return Check(
            id_,
            "fail",
            f"{id_}: the check failed because of a bug of blackwheel",
            f"{type(error).__name__}: {str(error)[:200]}",
            REPORT + ", with the traceback that verify names",
        )
