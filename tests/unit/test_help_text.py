"""The texts of --help and docs/cli.md are generated from the declarations of the options."""

from __future__ import annotations

import os
import re
import tomllib

import pytest

from sessions.command_line import help_text, session_order
from sessions.command_line.option_list import OPTIONS, takes
from sessions.shared import errors
from sessions.targets import targets_file
from tests import fakes

TEXT = (fakes.ROOT / "targets.toml").read_text(encoding="utf-8")
TARGETS = targets_file.load(TEXT, "linux")


def test_the_page_is_up_to_date() -> None:
    path = fakes.ROOT / "docs" / "cli.md"
    if os.environ.get("BLACKWHEEL_REGOLD"):
        path.write_text(help_text.markdown(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == help_text.markdown()


@pytest.mark.parametrize("session", session_order.REQUIRES)
def test_help_lists_exactly_the_options_of_a_session(session: str) -> None:
    output = help_text.text([session], TARGETS)
    options = output.split("options:\n", 1)[1].split("\n\n", 1)[0]
    flags = [line.split()[0] for line in options.splitlines()]
    assert flags == [option.flag for option in OPTIONS if takes(option, [session])]


def test_help_lists_the_targets_with_their_summaries() -> None:
    output = help_text.text(["verify"], TARGETS)
    tables = tomllib.loads(TEXT)
    del tables["defaults"]
    for name, table in tables.items():
        assert f"\n  {name} " in output
        assert table["summary"] in output


def test_help_without_a_session_lists_sessions_and_targets() -> None:
    output = help_text.overview(
        {name: f"What {name} does." for name in session_order.SESSIONS}, TARGETS
    )
    for name in session_order.SESSIONS:
        assert re.search(rf"^  {name} +What {name} does\.$", output, re.MULTILINE)
    for name, target in TARGETS.items():
        assert re.search(rf"^  {name} +{re.escape(target.summary)}$", output, re.MULTILINE)
    assert "-- --target auto" in output
    assert len(output.splitlines()) < 45


def test_help_of_several_sessions_has_the_options_of_all() -> None:
    output = help_text.text(["clean", "bench"], TARGETS)
    assert "--all " in output
    assert "--rounds N " in output
    assert "runs first: probe, source" in output


def test_the_page_has_every_exit_code_session_and_option() -> None:
    page = help_text.markdown()
    codes = {errors.CHECK_FAILED, errors.USAGE, errors.ENVIRONMENT, errors.BUG, 0, 129, 130, 143}
    assert set(help_text.EXIT_CODES) == codes
    rows = [f"\n| {code} | " for code in codes] + [f"\n| `{o.flag}" for o in OPTIONS]
    rows += [f"`{name}`" for name in session_order.SESSIONS]
    assert [row for row in rows if row not in page] == []


def test_the_page_names_only_options_that_exist() -> None:
    named = set(re.findall(r"`(--[\w-]+)", help_text.markdown()))
    assert named == {option.flag for option in OPTIONS}
