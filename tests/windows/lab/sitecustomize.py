"""Wine's links are said to be made, and are not; Windows refuses them to most users, and says so."""

import os


def refuse(src, dst, target_is_directory=False, *, dir_fd=None):
    raise OSError(22, "A required privilege is not held by the client", src, 1314, dst)


os.symlink = refuse
