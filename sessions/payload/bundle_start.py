"""What Python reads first of a bundle: any Python can, so that one that is too old is told so.

All other files would end there in a SyntaxError (RHEL 8's own Python is 3.6).
"""

import sys

if sys.version_info < (3, 8):
    here = ".".join(str(number) for number in sys.version_info[:2])
    sys.stderr.write(
        "This file needs the Python that its wheel is for; this is " + here + ".\n"
        "Fix: run it by a newer one, for example python3.11\n"
    )
    sys.exit(2)
sys.path.insert(0, sys.path[0] + "/payload")  # in the bundle, which is the first place

import bundle_launch

if __name__ == "__main__":
    bundle_launch.start()
