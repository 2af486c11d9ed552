"""``lock``: what it reads from NVIDIA's metadata and from an sdist, and what it writes."""

from __future__ import annotations

import io
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from sessions.command_line import session_order
from sessions.fetch import build_tools, sdist_lock
from sessions.lock import main_lock
from sessions.shared import knowledge, records, venvs
from tests import fakes
from tests.problems import raises

# Lines of METADATA of cuda-toolkit 13.1.2.0: pinned with a pattern, some more than once.
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


def test_the_pin_of_every_component_is_read_from_the_bundle() -> None:
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
    with raises("lock-cuda-parts-unknown") as caught:
        main_lock.bundle_pins(METADATA.replace("nvidia-nvvm==13.1.115.*;", "nvidia-nvvm;"))
    assert caught.value.evidence == "not named: nvidia-nvvm"


def item(name: str, version: str, digest: str) -> dict[str, object]:
    """One package of pip's installation report, with other keys."""
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
    packages = [item("nvidia-nvvm", "13.1.115", "ab"), item("nvidia-cublas", "13.2", "cd")]
    hashes = main_lock.report_hashes({"version": "1", "install": packages})
    assert hashes == {"nvidia-nvvm==13.1.115": "ab", "nvidia-cublas==13.2": "cd"}


def test_a_lock_file_can_be_read_again() -> None:
    text = main_lock.toolkit_text("13.1.2.0", {"a==1": {"ff", "ee"}, "b==2": {"dd"}})
    assert text == (
        "# CUDA 13.1.2.0: NVIDIA's own packages, for Linux x64 and Windows x64.\n"
        "a==1 \\\n    --hash=sha256:ee \\\n    --hash=sha256:ff\n"
        "b==2 \\\n    --hash=sha256:dd\n"
    )
    assert knowledge.parse_requirements(text) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("line", ["13.1", "13.4"])
def test_the_lock_files_of_the_project_have_this_format(line: str) -> None:
    text = knowledge.toolkit_lock(line).read_text(encoding="utf-8")
    release = text.split(":")[0].removeprefix("# CUDA ")
    hashes: dict[str, set[str]] = {}
    for block in text.replace(" \\\n    ", " ").splitlines()[1:]:
        pin, *options = block.split()
        hashes[pin] = {option.removeprefix("--hash=sha256:") for option in options}
    assert main_lock.toolkit_text(release, hashes) == text


def sdist(folder: Path, files: Mapping[str, bytes]) -> Path:
    path = folder / "llama_cpp_python-9.9.9.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"llama_cpp_python-9.9.9/{name}")
            info.size, info.mtime = len(data), 1667997441
            archive.addfile(info, io.BytesIO(data))
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
    path = sdist(tmp_path, {"PKG-INFO": b"Name: x\n", "pyproject.toml": settings.encode()})
    assert sdist_lock.row(path) == {
        "file": "llama_cpp_python-9.9.9.tar.gz",
        "sha256": records.file_sha256(path),
        "epoch": 1667997441,
        **more,
    }


def test_the_files_of_a_release_and_its_parts_are_read_from_the_sdist(tmp_path: Path) -> None:
    files = {
        "PKG-INFO": b'Name: x\nRequires-Dist: numpy>=1\nRequires-Dist: a; extra == "b"\n',
        "llama_cpp/__init__.py": b'__version__ = "9.9.9"\r\n',
        "llama_cpp/server/app.py": b"",
        "llama_cpp/lib/libllama.so": b"left over",
        "llama_cpp/__pycache__/a.pyc": b"left over",
        "tests/test_llama.py": b"",
        "CHANGELOG.md": b"## [9.9.9]\n- feat: llama.cpp@4227c9be42\n\n## [9.9.8]\n",
        "vendor/llama.cpp/vendor/stb/stb_image.h": b"/* stb_image - v2.30 */",
    }
    row = main_lock.upstream_row(sdist(tmp_path, files), "9.9.9")
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


def test_rows_are_sorted_by_release_and_keep_their_content(tmp_path: Path) -> None:
    known = tmp_path / "sdists.toml"
    known.write_text(
        '# kept\n[sdist]\n\n[sdist."0.3.16"]\nfile = "a"\nmerged = [\n    ["x"], # why\n]\n\n'
        '[sdist."0.3.36"]\nfile = "b"\n'
    )
    for version in ("0.3.9", "0.3.35", "0.3.100", "0.3.16"):
        main_lock.put(known, "sdist", version, {"file": version})
    text = known.read_text()
    rows = tomllib.loads(text)["sdist"]
    assert list(rows) == ["0.3.9", "0.3.16", "0.3.35", "0.3.36", "0.3.100"]
    assert rows["0.3.36"] == {"file": "b"}
    assert rows["0.3.16"] == {"file": "0.3.16", "merged": [["x"]]}  # added by a person
    assert text.startswith("# kept\n")
    assert "# why" in text
    text = (knowledge.KNOWLEDGE / "sdists.toml").read_text(encoding="utf-8")
    known.write_text(text, encoding="utf-8")
    main_lock.put(known, "sdist", "0.3.35", {"file": "new"})
    rows = tomllib.loads(known.read_text(encoding="utf-8"))["sdist"]
    assert list(rows) == ["0.3.16", "0.3.35", "0.3.36"]
    assert {v: row for v, row in rows.items() if v != "0.3.35"} == tomllib.loads(text)["sdist"]


LISTED = "llama-cpp-python (0.3.36)\nAvailable versions: 0.3.36, 0.3.35, 0.3.9\n"


class Index:
    """A fake ``pip index versions`` with this output."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.output = LISTED
        self.calls: list[list[str]] = []
        self.ctx = fakes.context(folder, session="lock")
        monkeypatch.setattr(build_tools, "own", lambda ctx: folder)
        monkeypatch.setattr(venvs, "pip", self.pip)

    def pip(self, ctx: object, venv: Path, words: list[str], what: str) -> str:
        self.calls.append(words[:2])
        return self.output


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_the_release_is_looked_up_in_the_package_index(index: Index) -> None:
    assert main_lock._published(index.ctx, "latest") == "0.3.36"
    assert main_lock._published(index.ctx, "0.3.9") == "0.3.9"
    with raises("lock-release-unknown") as caught:
        main_lock._published(index.ctx, "0.3.99")
    assert "0.3.99" in caught.value.what
    assert caught.value.remedy == "nox -s lock -- --add llama-cpp-python==0.3.36"
    index.output = "nothing\n"
    with raises("lock-no-releases"):
        main_lock._published(index.ctx, "latest")


def test_a_locked_newest_release_is_not_downloaded(index: Index) -> None:
    index.output = f"Available versions: {knowledge.newest_sdist()}\n"
    main_lock.lock_sdist(index.ctx, "latest")
    assert index.calls == [["index", "versions"]]


def test_an_unknown_cuda_version_is_refused_before_a_download(tmp_path: Path) -> None:
    with raises("lock-cuda-unknown") as caught:
        main_lock.lock_toolkit(fakes.context(tmp_path, session="lock"), "13.9")
    assert "cuda.toml" in caught.value.remedy


def test_a_lock_needs_no_compiler() -> None:
    assert session_order.closure(["lock"]) == ("lock",)
