"""CPython's ensurepip as far as venv uses it; Debian's Python, a source of the lab's, has none."""

import runpy
import sys
from pathlib import Path

wheels = Path(__file__).parent / "_bundled"
sys.path.insert(0, str(next(wheels.glob("pip-*.whl"))))
sys.argv = ["pip", "--disable-pip-version-check", "install", "--no-index", "--no-cache-dir"]
sys.argv += ["--find-links", str(wheels), "pip", "setuptools"]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
