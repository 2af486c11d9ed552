"""Wine says that it makes links, and makes none; Windows refuses most users, and says so."""

import os
from typing import NoReturn


def refuse(
    src: str, dst: str, target_is_directory: bool = False, *, dir_fd: int | None = None
) -> NoReturn:
    raise OSError(22, "A required privilege is not held by the client", src, 1314, dst)


os.symlink = refuse  # type: ignore[assignment]
