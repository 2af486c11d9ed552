"""Judgement of a wheel's facts against a target. Pure; every check says all it finds.

A check that lacks the facts it needs fails: nothing passes by absence.
"""

from __future__ import annotations

from sessions.core.model import CheckGroup
from sessions.wheelfile import check_device, check_file, check_host
from sessions.wheelfile.case import Case


def judge(case: Case) -> tuple[CheckGroup, ...]:
    """Every check, in groups. A wheel is sound if none of them fails."""
    if not case.facts.members:
        return (CheckGroup("The file", (check_file.archive(case),)),)  # nothing of it was read
    file, device, host = check_file, check_device, check_host
    groups = {
        "The file": (
            file.archive, file.record, file.metadata, file.layout, file.size, file.sbom,
            file.reproducible,
        ),
        "Device code": (device.gpu_code, device.ptx, device.gpu_features),
        "Host code": (
            host.libraries, host.imports, host.api, host.cpu_baseline, host.paths,
            host.platform_tag,
        ),
        "Its build": (file.loader, file.freshness),
    }  # fmt: skip
    return tuple(
        CheckGroup(name, tuple(check(case) for check in checks)) for name, checks in groups.items()
    )
