"""The first file of a bundle; it refuses a Python that is too old, so any Python must parse it.

The other files are a SyntaxError for an old Python (RHEL 8's Python is 3.6).
"""

import sys

if sys.version_info < (3, 8):
    here = ".".join(str(number) for number in sys.version_info[:2])
    sys.stderr.write(
        "This file needs the Python that its wheel is for; this is " + here + ".\n"
        "Fix: run it by a newer one, for example python3.11\n"
    )
    sys.exit(2)
sys.path.insert(0, sys.path[0] + "/payload")  # sys.path[0] is the bundle

import bundle_launch

if __name__ == "__main__":
    bundle_launch.start()
