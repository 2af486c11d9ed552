"""RELEASE.md: the result of each target, its checks, and every reason with its fix."""

from __future__ import annotations

from sessions.release.documents import release_page
from sessions.release.gate import failed
from sessions.release.record_types import Gate
from sessions.shared.check_result import Check

GOOD = Check("wheel", "ok", "wheel: it is the one | that was built")
WARNED = Check("smoke", "warn", "smoke: UNTESTED on 12.0", "run nowhere", "nox -s smoke")
BAD = Check("smoke", "fail", "smoke: not run", "run\nnowhere", "nox -s smoke -- --target rtx50")
WORSE = Check("source", "fail", "source: edited", "a.py", "nox -s source")


def gate(target: str, *checks: Check, untested: tuple[str, ...] = ()) -> Gate:
    return Gate(target, "a.whl", "e" * 64, untested, checks)


def rendered(*gates: Gate) -> str:
    """The page of a run with these results."""
    bad = {g.target: g for g in gates if failed(g.checks)}
    return release_page.render({g.target: g for g in gates if g.target not in bad}, bad)


def test_the_verdict_comes_from_the_checks() -> None:
    assert release_page.verdict(gate("a", GOOD)) == "RELEASE"
    assert release_page.verdict(gate("a", GOOD, BAD)) == "NOT RELEASABLE"
    untested = gate("a", GOOD, WARNED, untested=("12.0",))
    assert release_page.verdict(untested) == "RELEASE, UNTESTED on 12.0"


def test_every_reason_has_its_evidence_and_fix() -> None:
    text = rendered(gate("rtx50", GOOD, BAD, WORSE))
    assert "## rtx50: NOT RELEASABLE" in text
    assert "2 reasons:" in text
    assert (
        "- **smoke: not run**\n  - run\n  - nowhere\n  - fix: nox -s smoke -- --target rtx50\n"
    ) in text
    assert "- **source: edited**" in text
    assert "  - fix: nox -s source" in text
    assert "1 reason:" in rendered(gate("rtx50", GOOD, BAD))
    assert "reason" not in rendered(gate("rtx50", GOOD))


def test_every_target_and_every_check_is_on_the_page() -> None:
    text = rendered(gate("a", GOOD), gate("b", GOOD, BAD), Gate("c", "", "", (), (BAD,)))
    assert "| a | RELEASE | a.whl |" in text
    assert "| b | NOT RELEASABLE | a.whl |" in text
    assert "| c | NOT RELEASABLE | none |" in text
    assert "| wheel | yes | it is the one \\| that was built |" in text
    assert "| smoke | **no** | not run |" in text
    warned = rendered(gate("a", WARNED, untested=("12.0",)))
    assert "| smoke | yes, but | UNTESTED on 12.0 |" in warned


def test_text_of_a_report_is_escaped() -> None:
    hostile = "on <b>*A GPU* | [x](y) \x1b[2J"
    evil = Check("smoke", "fail", f"smoke: {hostile}", f"# {hostile}\n- b", hostile)
    text = rendered(Gate("a", hostile, "e" * 64, (), (evil,)))
    shown = r"on &lt;b&gt;\*A GPU\* \| \[x\](y)  \[2J"
    assert text.count(shown) == 5
    assert f"  - \\# {shown}\n" in text
    assert "\x1b" not in text


def test_an_earlier_release_is_shown_with_its_own_verdict() -> None:
    before, now = gate("a", GOOD), Gate("a", "b.whl", "f" * 64, (), (BAD,))
    text = release_page.render({"a": before}, {"a": now})
    assert "| a | NOT RELEASABLE | b.whl |\n| a, released before | RELEASE | a.whl |" in text
    assert f"## a, released before: RELEASE\n\nSHA-256 `{'e' * 64}`" in text
