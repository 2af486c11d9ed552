"""The pip settings that are passed on: those that say where packages come from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sessions.payload import pipconfig
from sessions.shared.programs import capture

LISTED = """\
global.find-links='/opt/wheels\\n/more'
global.index-url='https://a/simple'
global.user='true'
global.timeout='60'
download.timeout='9'
install.target='/elsewhere'
install.timeout='5'
wheel.no-deps='true'
:env:.cert='/from/env.pem'
a line that is none
"""


def test_only_settings_of_package_sources_are_taken_from_pips_files() -> None:
    assert pipconfig.environment({"HOME": "/h"}, LISTED, "install") == {
        "HOME": "/h",
        "PIP_FIND_LINKS": "/opt/wheels\n/more",
        "PIP_INDEX_URL": "https://a/simple",
        "PIP_TIMEOUT": "5",  # as in pip, the command's section has priority
        "PIP_CONFIG_FILE": os.devnull,
    }
    assert pipconfig.environment({}, LISTED, "download")["PIP_TIMEOUT"] == "9"


def test_the_environment_has_priority_over_pips_files() -> None:
    env = {"PIP_INDEX_URL": "https://b/simple", "PIP_CONFIG_FILE": "/my/pip.conf"}
    found = pipconfig.environment(env, LISTED, "install")
    assert found["PIP_INDEX_URL"] == "https://b/simple"
    assert found["PIP_CONFIG_FILE"] == os.devnull


@pytest.mark.parametrize(
    "name",
    [
        "TARGET", "USER", "PREFIX", "ROOT", "REQUIRE_HASHES", "NO_DEPS", "DRY_RUN", "CONSTRAINT",
        "REQUIREMENT", "EDITABLE", "PYTHON", "PLATFORM", "ONLY_BINARY", "NO_BINARY", "PRE",
        "IGNORE_INSTALLED", "NO_COMPILE", "REPORT", "ISOLATED", "REQUIRE_VIRTUALENV", "LOG",
        "BREAK_SYSTEM_PACKAGES", "SRC", "UPGRADE", "NO_BUILD_ISOLATION", "CONFIG_SETTINGS",
    ],
)  # fmt: skip
def test_settings_of_the_installation_are_ignored(name: str) -> None:
    env = {f"PIP_{name}": "1", f"pip_{name.lower()}": "1"}
    assert pipconfig.passed(env) == {}
    listed = f"global.{name.lower().replace('_', '-')}='1'"
    assert pipconfig.environment(env, listed, "install") == {"PIP_CONFIG_FILE": os.devnull}


@pytest.mark.parametrize("name", sorted(pipconfig.HONOURED - {"use-feature", "use-deprecated"}))
def test_settings_of_package_sources_are_passed_on(name: str) -> None:
    variable = f"PIP_{name.upper().replace('-', '_')}"
    assert pipconfig.passed({variable: "x"}) == {variable: "x"}
    assert pipconfig.environment({}, f"global.{name}='x'", "install")[variable] == "x"


def test_only_features_about_certificates_are_passed_on() -> None:
    given = {"PIP_USE_FEATURE": "fast-deps truststore", "PIP_USE_DEPRECATED": "legacy-resolver"}
    assert pipconfig.passed(given) == {"PIP_USE_FEATURE": "truststore"}


def test_the_output_of_pip_config_list_is_read(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://it's\nuser = true\n[install]\ntarget = x\n")
    env = {**os.environ, "PIP_CONFIG_FILE": str(file)}
    done = capture([sys.executable, *pipconfig.LIST], env=env)
    assert done.returncode == 0, done.output
    found = pipconfig.environment({}, done.stdout, "install")
    assert found["PIP_INDEX_URL"] == "https://it's"
    assert {"PIP_USER", "PIP_TARGET"} & found.keys() == set()
