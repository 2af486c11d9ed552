"""The version in the file name of a wheel."""

from __future__ import annotations

from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from sessions.shared.errors import UsageProblem


def version(wheel: Path) -> str:
    """The version in a wheel's file name. Raises Problem if pip would not accept the name."""
    try:
        return str(parse_wheel_filename(wheel.name)[1])
    except InvalidWheelFilename as error:
        raise UsageProblem(
            f"{wheel.name} is not the name of a wheel, and pip would not install it.",
            id="wheel-name-invalid",
            evidence=str(error),
            remedy="give the file the name that it was built under, for example "
            "llama_cpp_python-0.3.16-py3-none-linux_x86_64.whl",
        ) from error
