"""The maintainers' session: what it reads from NVIDIA's metadata and writes down."""

from __future__ import annotations

import io
import tarfile
import tomllib
from pathlib import Path

import pytest

from sessions.fetch import sdist_lock
from sessions.lock import main_lock
from sessions.shared import knowledge, records
from tests.problems import raises

# Lines of METADATA of cuda-toolkit 13.1.2.0, as they are: pinned by pattern, each more than once.
MARK = (
    "(sys_platform == 'linux' and platform_machine == 'x86_64' or sys_platform == 'win32' and "
    "platform_machine == 'AMD64')"
)
METADATA = f"""\
Metadata-Version: 2.4
Name: cuda-toolkit
Version: 13.1.2.0
Requires-Dist: nvidia-cublas==13.2.2.2.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-cccl==13.1.115.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-crt==13.1.115.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-nvcc==13.1.115.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-nvrtc==13.1.115.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-runtime==13.1.80.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-nvvm==13.1.115.*; {MARK} and extra == 'all'
Requires-Dist: nvidia-cuda-runtime==13.1.80.*; {MARK} and extra == 'cudart'
Provides-Extra: all
"""


def test_the_release_and_the_pin_of_every_component_are_read_from_the_bundle() -> None:
    release, pins = main_lock.bundle_pins(METADATA)
    assert release == "13.1.2.0"
    assert {name: pins[name] for name in main_lock.COMPONENTS} == {
        "nvidia-cuda-nvcc": "13.1.115.*",
        "nvidia-nvvm": "13.1.115.*",
        "nvidia-cuda-crt": "13.1.115.*",
        "nvidia-cuda-runtime": "13.1.80.*",
        "nvidia-cuda-cccl": "13.1.115.*",
        "nvidia-cublas": "13.2.2.2.*",
    }


def test_a_bundle_that_leaves_a_component_unpinned_is_refused() -> None:
    text = METADATA.replace("nvidia-nvvm==13.1.115.*;", "nvidia-nvvm;")
    with raises("lock-cuda-parts-unknown") as caught:
        main_lock.bundle_pins(text)
    assert caught.value.evidence == "not named: nvidia-nvvm"


def item(name: str, version: str, digest: str) -> dict[str, object]:
    """One package of pip's installation report, with what else is in it."""
    return {
        "download_info": {
            "url": f"https://files.example/{name}-{version}.whl",
            "archive_info": {"hash": f"sha256={digest}", "hashes": {"sha256": digest}},
        },
        "is_direct": False,
        "requested": True,
        "metadata": {"metadata_version": "2.1", "name": name, "version": version},
    }


def test_hashes_are_read_from_pips_report() -> None:
    report = {
        "version": "1",
        "install": [item("nvidia-nvvm", "13.1.115", "ab"), item("nvidia-cublas", "13.2", "cd")],
    }
    assert main_lock.report_hashes(report) == {
        "nvidia-nvvm==13.1.115": "ab",
        "nvidia-cublas==13.2": "cd",
    }


def test_a_lock_file_is_what_pip_and_we_can_read() -> None:
    text = main_lock.toolkit_text("13.1.2.0", {"a==1": {"ff", "ee"}, "b==2": {"dd"}})
    assert text == (
        "# CUDA 13.1.2.0: NVIDIA's own packages, for Linux x64 and Windows x64.\n"
        "a==1 \\\n    --hash=sha256:ee \\\n    --hash=sha256:ff\n"
        "b==2 \\\n    --hash=sha256:dd\n"
    )
    assert knowledge.parse_requirements(text) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("line", ["13.1", "13.4"])
def test_a_lock_file_of_the_project_is_as_this_would_write_it(line: str) -> None:
    text = knowledge.toolkit_lock(line).read_text(encoding="utf-8")
    release = text.split(":")[0].removeprefix("# CUDA ")
    hashes: dict[str, set[str]] = {}
    for block in text.replace(" \\\n    ", " ").splitlines()[1:]:
        pin, *options = block.split()
        hashes[pin] = {option.removeprefix("--hash=sha256:") for option in options}
    assert main_lock.toolkit_text(release, hashes) == text


def sdist(folder: Path, settings: str) -> Path:
    path = folder / "llama_cpp_python-9.9.9.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("PKG-INFO", "Name: x\n"), ("pyproject.toml", settings)):
            info = tarfile.TarInfo(f"llama_cpp_python-9.9.9/{name}")
            info.size, info.mtime = len(text.encode()), 1667997441
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ('[tool.scikit-build]\nwheel.packages = ["llama_cpp"]\n', {}),
        ('[tool.scikit-build]\nwheel.py-api = "py3"\n', {"py_api": "py3"}),
    ],
    ids=["bound", "any-python"],
)
def test_the_row_of_an_sdist_is_read_from_it(
    settings: str, more: dict[str, str], tmp_path: Path
) -> None:
    path = sdist(tmp_path, settings)
    assert sdist_lock.row(path) == {
        "file": "llama_cpp_python-9.9.9.tar.gz",
        "sha256": records.file_sha256(path),
        "epoch": 1667997441,
        **more,
    }


def test_the_files_of_a_release_and_its_parts_are_read_from_the_sdist(tmp_path: Path) -> None:
    path = tmp_path / "llama_cpp_python-9.9.9.tar.gz"
    texts = {
        "PKG-INFO": b'Name: x\nRequires-Dist: numpy>=1\nRequires-Dist: a; extra == "b"\n',
        "llama_cpp/__init__.py": b'__version__ = "9.9.9"\r\n',
        "llama_cpp/server/app.py": b"",
        "llama_cpp/lib/libllama.so": b"left over",
        "llama_cpp/__pycache__/a.pyc": b"left over",
        "tests/test_llama.py": b"",
        "CHANGELOG.md": b"## [9.9.9]\n- feat: llama.cpp@4227c9be42\n\n## [9.9.8]\n",
        "vendor/llama.cpp/vendor/stb/stb_image.h": b"/* stb_image - v2.30 */",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, data in texts.items():
            info = tarfile.TarInfo(f"llama_cpp_python-9.9.9/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    row = main_lock.upstream_row(path, "9.9.9")
    assert row == {
        "requires": ["numpy>=1", 'a; extra == "b"'],
        "parts": {"llama.cpp": "4227c9be42", "ggml": "", "stb_image": "2.30"},
        "files": {
            "llama_cpp/__init__.py": records.text_sha256(b'__version__ = "9.9.9"\n'),
            "llama_cpp/server/app.py": records.text_sha256(b""),
        },
    }
    known = tmp_path / "upstream.toml"
    known.write_text('# kept\n[release]\n[release."9.9.9".files]\n"a" = "old"\n')
    main_lock.put(known, "release", "9.9.9", row)
    assert known.read_text().startswith("# kept\n")
    assert tomllib.loads(known.read_text()) == {"release": {"9.9.9": row}}
