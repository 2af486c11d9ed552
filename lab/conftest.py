"""The fixtures of the integration tests, which tests here use too."""

from tests.integration.conftest import built, environment, mini, project

__all__ = ["built", "environment", "mini", "project"]
