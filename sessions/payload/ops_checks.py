"""Checks the results of upstream's operator test; pure, used in a bundle and in the checkout.

``expected`` is the release's row of ``ops_expected.toml`` for one kind of backend:
``cases`` and ``unsupported`` per operator, ``tested`` (whether the latter is known), ``sample``
(which operators are tested with a part of their cases), ``narrow``, ``limit``, ``known``,
``library`` (which each process must have loaded), ``backend`` (the device that is tested).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ERROR = re.compile(r"(?:NMSE|ERR|MAA) = ([0-9.]+) > ([0-9.]+)")
_REPORT = "open an issue in the repository of blackwheel, with the report file"
SHOWN = 12  # lines of evidence


def is_tested(operator: str, case: str, sample: Mapping[str, Any]) -> bool:
    """Whether a case is tested: for operators in the sample, one case of each ``share``."""
    whole = operator not in sample["operators"]
    return whole or zlib.crc32(case.encode()) % int(sample["share"]) == 0


def near_bound(error: str) -> bool:
    """Whether the error of a case is at most twice its bound; False for NaN and other errors."""
    found = _ERROR.search(error)
    return found is not None and 0 < float(found[1]) <= 2 * float(found[2])


def marginal(tries: Sequence[str]) -> bool:
    """Whether a case was wrong by chance: right once, and else always near its bound.

    ``tries`` has the error with each seed, "" if it was right; the first try was wrong.
    """
    return "" in tries[1:] and all(near_bound(error) for error in tries if error)


def checks(report: Mapping[str, Any], expected: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every check of a report, as dictionaries of id, status, summary, evidence, remedy."""
    wrong = list(report["wrong"])
    known = {
        row["case"]: [w for w in wrong if w["case"].startswith(row["case"])]
        for row in expected["known"]
    }
    taken = [case for rows in known.values() for case in rows]
    rest = [case for case in wrong if case not in taken]
    by_chance = [case for case in rest if marginal(case["tries"])]
    false = [case for case in rest if case not in by_chance]
    plain, narrow = ([w for w in false if w["narrowed"] is flag] for flag in (False, True))
    operators = report["operators"]
    right = sum(row["right"] for row in operators.values())
    more, fewer = _support(operators, expected)
    refused = sum(row["unsupported"] for row in operators.values())
    answered = right + refused + sum(row["wrong"] for row in operators.values())
    by_chance_notes = [f"marginal, right with another seed: {_shown(c)}" for c in by_chance]
    return [
        _check(
            "libraries",
            _libraries(report["libraries"], expected["library"]),
            ok=f"each process used the wheel's own libraries, also {expected['library']}",
            fail="not every process used the wheel's own libraries",
            remedy="remove other packages with libraries of ggml from the environment, then "
            "run it again",
        ),
        _check(
            "reference",
            [] if report["backend"] == expected["backend"] else [f"tested: {report['backend']}"],
            ok=_reference(expected["backend"]),
            fail=f"the device that was tested is not {expected['backend']}",
            remedy="run nox -s ops again: it must compare two different libraries",
        ),
        _check(
            "complete",
            [*report["problems"], *_counts(operators, expected["cases"]), *_unnamed(report)],
            ok=f"{answered} cases of {len(operators)} operators answered, {_asked(expected)}",
            fail="some cases have no result",
            remedy="run it again; a case that crashed or hung is named above",
        ),
        _check(
            "supported",
            more,
            ok=f"{refused} cases are not supported, each for a known reason",
            fail="the backend refuses cases that it should support",
            remedy=_REPORT + "; maintainers: compare supports_op of ggml with "
            "sessions/data/knowledge/ops_expected.toml",
            notes=fewer,
        ),
        _check(
            "right",
            map(_shown, plain),
            ok=f"{right} results agree with the reference",
            fail=f"wrong cases: {len(plain)}",
            remedy="do not use this wheel on this device; " + _REPORT,
            notes=by_chance_notes,
        ),
        _check(
            "narrowed",
            [*map(_shown, narrow), *_narrowed(report["narrowed"], expected)],
            ok=f"{len(expected['narrow'])} activations agree with inputs within "
            f"±{expected['limit']:g} too",
            fail="activations differ, or were not tested, with inputs of a narrow range",
            remedy="run nox -s ops again; if it happens again, do not use this wheel, and "
            + _REPORT,
        ),
        _check(
            "known",
            _known(known, expected["known"]),
            ok=f"{len(taken)} wrong {'case is a' if len(taken) == 1 else 'cases are'} known "
            "upstream " + ("fault" if len(taken) == 1 else "faults"),
            fail="known upstream faults have changed",
            remedy=_REPORT
            + "; maintainers: if upstream has corrected the fault, remove its row from "
            "sessions/data/knowledge/ops_expected.toml",
        ),
    ]


def _asked(expected: Mapping[str, Any]) -> str:
    sample = expected["sample"]
    names = ", ".join(sample["operators"])
    part = f"; of {names} one case of each {sample['share']} is tested" if names else ""
    return f"as many as the release has{part}"


def _reference(backend: str) -> str:
    if backend == "SCALAR":
        return "the wheel's CPU code was compared with plain C, not with itself"
    return f"{backend} was compared with the wheel's CPU code"


def _check(
    id_: str, problems: Iterable[str], *, ok: str, fail: str, remedy: str, notes: Iterable[str] = ()
) -> dict[str, str]:
    lines, notes = list(problems), list(notes)
    shown = lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
    return {
        "id": id_,
        "status": "fail" if lines else "ok",
        "evidence": "\n".join([*shown, *(f"note: {note}" for note in notes[:SHOWN])]),
        "summary": f"{id_}: {fail if lines else ok}",
        "remedy": remedy if lines else "",
    }


def _shown(case: Mapping[str, Any]) -> str:
    tries = "; ".join(error or "right" for error in case["tries"])
    return f"{case['case']}{' (narrowed)' if case['narrowed'] else ''}: {tries}"


def _libraries(paths: Sequence[str], needed: str) -> list[str]:
    """The libraries of ggml that are not the wheel's (``llama_cpp/lib/…``), or are missing."""
    own = [path for path in paths if re.fullmatch(r"llama_cpp/lib/[^/]+", path)]
    problems = [f"not a library of the wheel: {path}" for path in paths if path not in own]
    if not any(needed in path for path in own):
        problems.append(f"no process loaded {needed}")
    return problems


def _answered(row: Mapping[str, Any]) -> int:
    return int(row["right"] + row["wrong"] + row["unsupported"])


def _counts(operators: Mapping[str, Any], cases: Mapping[str, int]) -> list[str]:
    """How the operators differ from the table: unknown, without results, or too many cases."""
    found = [f"{name}: not in the table of this release" for name in operators.keys() - cases]
    for name, count in cases.items():
        row = operators.get(name)
        if row is None or not _answered(row):
            found.append(f"{name}: none of {count} cases answered")
        elif _answered(row) != count:
            found.append(f"{name}: {_answered(row)} of {count} cases answered")
        elif row["listed"] not in (0, count) and row["listed"] > count:
            found.append(f"{name}: {row['listed']} cases listed, {count} in the table")
    return sorted(found)


def _unnamed(report: Mapping[str, Any]) -> list[str]:
    """The difference between the number of wrong results and the number of named wrong cases."""
    found = []
    for rows, flag in ((report["operators"], False), (report["narrowed"], True)):
        counted = sum(row["wrong"] for row in rows.values())
        named = sum(case["narrowed"] is flag for case in report["wrong"])
        if counted != named:
            found.append(f"wrong cases: {counted} by the counts, {named} by their names")
    return found


def _support(
    operators: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Operators with more, and with fewer, unsupported cases than the table has."""
    more, fewer = [], []
    if not expected["tested"]:
        more.append("the table does not have what this backend supports in this release")
    for name, row in sorted(operators.items()):
        pinned, count = expected["unsupported"].get(name, 0), row["unsupported"]
        line = f"{name}: {count} cases not supported, {pinned} in the table"
        if count > pinned:
            more.append(line)
        elif count < pinned:
            fewer.append(line)
    return more, fewer


def _narrowed(rows: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    found = []
    for name in expected["narrow"]:
        row, count = rows.get(name), expected["cases"].get(name)
        if row is None or _answered(row) != count:
            found.append(f"{name}: {_answered(row) if row else 0} of {count} cases answered")
        elif row["unsupported"] > expected["unsupported"].get(name, 0):
            found.append(f"{name}: {row['unsupported']} cases not supported")
    return found


def _known(found: Mapping[str, Sequence[Any]], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['case']}: {len(found[row['case']])} wrong, {row['count']} in the table: {row['why']}"
        for row in rows
        if len(found[row["case"]]) != row["count"]
    ]
