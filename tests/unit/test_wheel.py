"""The session wheel: the contents of a wheel, the CMake tree, the compilation, the next steps."""

from __future__ import annotations

import ast
import dataclasses
import json
import shlex
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sessions.build import cmake_tree, compilation, main_wheel, wheel_contents
from sessions.build.record_types import Timeline
from sessions.shared import knowledge, programs, records
from sessions.shared.build_spec import BuildSpec
from sessions.shared.context import Context
from sessions.shared.errors import USAGE
from sessions.shared.host import Host
from sessions.shared.programs import Finished
from tests import fakes
from tests.problems import raises

INFO = "llama_cpp_python-0.3.16.dist-info"
CPU = [
    "llama_cpp/__init__.py",
    "llama_cpp/_backends.py",
    "llama_cpp/_doctor.py",
    "llama_cpp/server/app.py",
    "llama_cpp/lib/libggml.so",
    "llama_cpp/lib/libggml-base.so",
    "llama_cpp/lib/libggml-cpu-x64.so",
    "llama_cpp/lib/libggml-cpu-haswell.so",
    "llama_cpp/lib/libllama.so",
    "llama_cpp/lib/libmtmd.so",
    "llama_cpp/lib/libgomp.so.1",
    f"{INFO}/METADATA",
    f"{INFO}/licenses/LICENSE.md",
    f"{INFO}/RECORD",
]
CUDA = [
    *CPU,
    "llama_cpp/_cuda_runtime.py",
    "llama_cpp/_gpu_check.py",
    "llama_cpp/lib/libggml-cuda.so",
]
NAME = fakes.wheel().file


# The DLLs that delvewheel copies into a Windows wheel, and the names that it gives them.
VENDORED = ("msvcp140.dll", "vcomp140.dll")
BUNDLED = [f"llama_cpp_python.libs/{n}-{'0f' * 16}.dll" for n in ("msvcp140", "vcomp140")]


@pytest.mark.parametrize(
    ("release", "compiler", "wrong"),
    [
        ("0.3.16", ("gnu", "13.3.0"), True),  # the release computes wrongly
        ("0.3.36", ("gnu", "12.2.0"), True),  # the compiler does
        ("0.3.36", ("gnu", "13.3.0"), False),
        ("0.3.36", ("msvc", "19.44.35207"), False),
    ],
)
def test_modules_that_would_compute_wrongly_are_left_out(
    release: str, compiler: tuple[str, str], wrong: bool
) -> None:
    assert knowledge.left_out(release, *compiler) == ["sapphirerapids"] * wrong


def windows() -> list[str]:
    """The members of a CUDA wheel for Windows."""
    dlls = [n.replace("/lib/lib", "/lib/").removesuffix(".so") + ".dll" for n in CUDA if ".so" in n]
    others = [n for n in CUDA if ".so" not in n]
    own = [*others, *(n for n in dlls if "gomp" not in n), "llama_cpp/_bundled_dlls.py"]
    return [*own, *BUNDLED, f"{INFO}/DELVEWHEEL"]


SAPPHIRERAPIDS = "llama_cpp/lib/libggml-cpu-sapphirerapids.so"
LOAD_ORDER = "llama_cpp_python.libs/.load-order-llama_cpp_python-0.3.36"  # if it is for any Python
STRAYS = (
    "lib/libllama.a",
    "include/llama.h",
    "bin/llama-mtmd-cli",
    "llama_cpp_python.libs/libgomp-a34b3233.so.1",
    "llama_cpp.py",
    BUNDLED[0],
)
NO_LIBRARY = [f"0 copies of {name} instead of one" for name in wheel_contents.LIBRARIES]
NO_MODULE = ["missing: llama_cpp/_backends.py", "missing: llama_cpp/_doctor.py"]
TWO = ["2 copies of llama instead of one"]


@pytest.mark.parametrize(
    ("members", "left_out", "expected"),
    [
        (CUDA, "", []),
        ([*CUDA, SAPPHIRERAPIDS], "", []),
        ([*CUDA, SAPPHIRERAPIDS], "sapphirerapids", ["not asked for: ggml-cpu-sapphirerapids"]),
        (CUDA, "sapphirerapids", []),
        *(([*CUDA, stray], "", [f"stray: {stray}"]) for stray in STRAYS),
        ([*CUDA, "llama_cpp/lib64/libllama.so"], "", TWO),
        ([*CUDA, "llama_cpp/lib/libllama.so.0"], "", TWO),  # as upstream installs it
        (
            CPU,
            "",
            [
                "0 copies of ggml-cuda instead of one",
                "missing: llama_cpp/_cuda_runtime.py",
                "missing: llama_cpp/_gpu_check.py",
            ],
        ),
    ],
)
def test_problems_of_a_cuda_wheel(members: list[str], left_out: str, expected: list[str]) -> None:
    assert wheel_contents.problems(members, cuda=True, left_out=left_out.split()) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (CPU, []),
        *(
            (
                [name for name in CPU if name != f"llama_cpp/lib/lib{library}.so"],
                [f"0 copies of {library} instead of one"],
            )
            for library in ("ggml", "ggml-base", "ggml-cpu-x64", "llama", "mtmd")
        ),
        (["x.so"], ["stray: x.so", *NO_LIBRARY, *NO_MODULE]),
        ([], [*NO_LIBRARY, *NO_MODULE]),
        ([*CPU, "llama_cpp/lib/libggml-cuda.so"], ["not asked for: ggml-cuda"]),
    ],
)
def test_problems_of_a_cpu_wheel(members: list[str], expected: list[str]) -> None:
    assert wheel_contents.problems(members, cuda=False) == expected


@pytest.mark.parametrize(
    ("without", "more", "expected"),
    [
        ("", "", []),
        ("", LOAD_ORDER, []),
        (BUNDLED[0], "", ["0 copies of msvcp140.dll instead of one"]),
        (BUNDLED[1], "", ["0 copies of vcomp140.dll instead of one"]),
        *(
            ("", f"llama_cpp_python.libs/{n}-{'1e' * 16}.dll", [f"not asked for: {n}.dll"])
            for n in ("cublas64_13", "vcruntime140", "libgomp-1")
        ),
        ("llama_cpp/_bundled_dlls.py", "", ["missing: llama_cpp/_bundled_dlls.py"]),
    ],
)
def test_problems_of_a_windows_wheel(without: str, more: str, expected: list[str]) -> None:
    members = [*(name for name in windows() if name != without), *([more] if more else [])]
    assert wheel_contents.problems(members, cuda=True, vendored=VENDORED) == expected


def with_records(root: Path, *words: str, host: Host | None = None) -> Context:
    ctx = fakes.context(root, *words)
    records.write(ctx.record("configure"), "configure", fakes.build_env())
    records.write(ctx.record("probe"), "probe", fakes.chain(host=host or fakes.host()))
    records.write(ctx.record("source"), "source", fakes.source())
    return ctx


def test_a_current_wheel_is_not_built_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = with_records(tmp_path)
    ctx.wheels.mkdir(parents=True)
    (ctx.wheels / NAME).write_bytes(b"wheel")
    sha256 = records.file_sha256(ctx.wheels / NAME)
    records.write(ctx.record("wheel"), "wheel", fakes.wheel(sha256=sha256))
    main_wheel.main(ctx)
    output = capsys.readouterr().out
    assert f"up to date, {ctx.wheels / NAME}" in output
    assert output.splitlines()[-1].split() == ["nox", "-s", "smoke", "--", "--target", "rtx50"]
    # On the way to another session there is no next step.
    main_wheel.main(dataclasses.replace(ctx, asked=frozenset({"verify"})))
    assert "pip install" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spec", "gpus", "session"),
    [
        (fakes.spec(), ["12.0"], "smoke"),
        (fakes.spec(), ["8.9", "12.0"], "smoke"),
        (fakes.spec(), ["8.9"], "bundle"),
        (fakes.spec(), [], "bundle"),
        (fakes.cpu_spec(), [], "smoke"),
    ],
    ids=["gpu", "beside-another", "another-gpu", "no-gpu", "cpu"],
)
def test_next_steps_are_to_install_and_to_test(
    spec: BuildSpec, gpus: list[str], session: str
) -> None:
    path = Path("/my wheels") / NAME
    output = main_wheel.next_steps(spec, path, gpus)
    install, tried, *commands = [line.strip() for line in output if line.startswith("  ")]
    (word, _, code) = shlex.split(tried)
    assert (word, ast.parse(code) is not None) == ("python", True)
    assert ("n_gpu_layers=-1" in code) is bool(spec.cuda)
    assert [install, *commands] == [
        programs.typed(["pip", "install", str(path)]),
        f"nox -s {session} -- --target {spec.target}",
    ]
    size = f"{knowledge.runtime_mb()} MB"
    assert (size in "".join(output)) is bool(spec.cuda)


def test_a_disk_that_is_too_small_fails_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's value is not used: up to 1.3 GB may have been downloaded since."""
    ctx = with_records(tmp_path, host=fakes.host(disk_free_mib=100000))
    checked: list[Path] = []

    def usage(folder: Path) -> Any:
        checked.append(folder)
        return types.SimpleNamespace(free=500 << 20)

    monkeypatch.setattr("shutil.disk_usage", usage)
    with raises("disk-too-small"):
        main_wheel.main(ctx)
    assert checked == [ctx.build]
    assert not (ctx.build / "src").exists()


def configured(tree: Path, *archs: str, kit: str = fakes.toolkit().root) -> Path:
    """A tree as CMake leaves it, with a CUDA file for each of ``archs`` ("90-real;120" is one)."""
    flags = {
        "120-real": "arch=compute_120,code=[sm_120]",
        "120a-real": "arch=compute_120a,code=[sm_120a]",
        "120": "arch=compute_120,code=[compute_120,sm_120]",
        "90-real": "arch=compute_90,code=[sm_90]",
    }
    commands = [{"file": "/s/a.cpp", "command": "g++ -c /s/a.cpp"}]
    for n, named in enumerate(archs):
        options = [f'"--generate-code={flags[arch]}"' for arch in named.split(";") if arch]
        commands.append({"file": f"/s/{n}.cu", "command": " ".join(["nvcc", *options])})
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "compile_commands.json").write_text(json.dumps(commands))
    (tree / "CMakeCache.txt").write_text(f"CUDA_CUDART:FILEPATH={kit}/lib64/libcudart.so\n")
    return tree


def check(tree: Path, *archs: str) -> None:
    spec = fakes.spec(archs=archs) if archs else fakes.cpu_spec()
    cmake_tree.check(tree, spec, fakes.toolkit() if archs else None)


@pytest.mark.parametrize(
    ("requested", "compiled"),
    [
        (("120-real",), ["120-real", "120-real"]),
        (("120",), ["120"]),
        (("120-real", "120-virtual"), ["120"]),
        (("90-real", "120a-real"), ["120a-real;90-real"]),
        ((), []),
    ],
)
def test_check_accepts_the_architectures_of_the_target(
    requested: tuple[str, ...], compiled: list[str], tmp_path: Path
) -> None:
    tree = configured(tmp_path, *compiled)
    check(tree, *requested)
    for path in tree.iterdir():  # a path that is not UTF-8
        path.write_bytes(path.read_bytes().replace(b"/s/", b"/\xff/") + b"\n")
    check(tree, *requested)


@pytest.mark.parametrize(
    ("requested", "compiled", "option"),
    [
        (("120-real",), ["120a-real", "120a-real"], "--arch 120a-real"),
        (("120",), ["120-real"], "--arch 120-real"),
        (("120-real",), ["120"], "--arch 120"),
        (("120-real",), ["90-real;120-real"], "--arch '120-real;90-real'"),
        (("120-real", "90-real"), ["120-real", "90-real"], None),
        (("120-real",), ["120-real", "120a-real"], None),
        (("120-real",), [""], None),
        (("120-real",), [], None),
        ((), ["120-real"], None),
    ],
)
def test_check_refuses_other_architectures_and_names_the_option(
    requested: tuple[str, ...], compiled: list[str], option: str | None, tmp_path: Path
) -> None:
    with raises("build-other-architectures") as caught:
        check(configured(tmp_path, *compiled), *requested)
    assert caught.value.code == USAGE
    words = option.split(" ", 1)[1].strip("'") if option else ""
    how = programs.typed(["--arch", words]) if option else "--version"
    assert caught.value.remedy.endswith(how)


def test_check_refuses_another_toolkit(tmp_path: Path) -> None:
    with raises("build-foreign-cuda"):
        check(configured(tmp_path, "120-real", kit="/usr/local/cuda-13.0"), "120-real")


CONFIGURED = "-- Build files have been written to: /b/tree"


def building(root: Path, monkeypatch: pytest.MonkeyPatch, played: Callable[[Any], None]) -> Context:
    """A target about to be compiled; the program calls ``played`` with the reader of its output."""
    ctx = with_records(root)
    records.write(ctx.record("toolkit"), "toolkit", fakes.toolkit())
    monkeypatch.setattr("sessions.fetch.build_tools.tools", lambda _: Path("/tools"))

    def stream(words: Sequence[str], **how: Any) -> Finished:
        played(how["on_line"])
        return Finished(tuple(words), 0, "", 1.0)

    monkeypatch.setattr(programs, "stream", stream)
    return ctx


def compile_(ctx: Context) -> tuple[int, dict[str, int]]:
    return compilation.run(ctx, fakes.build_env(), fakes.chain(), "0.3.16")


@pytest.mark.parametrize("printed", [True, False])
def test_a_build_for_other_architectures_stops_before_the_first_file(
    printed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If CMake does not print that it is done, the error is found at the end of the build."""
    output = ["-- Configuring done (3.2s)", CONFIGURED, "[1/9] Building CUDA object a.cu.o"]
    lines: list[str] = []

    def played(on_line: Callable[[str], None]) -> None:
        for line in output if printed else []:
            lines.append(line)
            on_line(line)

    ctx = building(tmp_path, monkeypatch, played)
    configured(ctx.build / "tree", "120a-real")
    with raises("build-other-architectures"):
        compile_(ctx)
    assert lines == (output[:2] if printed else [])


STATS = "# /s/a.cpp\ndirect_cache_hit\n"


@pytest.mark.parametrize(
    ("data", "counts"),
    [(STATS.encode(), {"hits": 1, "misses": 0}), (b"\xff\xfe", {}), (None, {}), ("folder", {})],
    ids=["good", "not-utf-8", "missing", "folder"],
)
def test_statistics_of_the_cache_that_cannot_be_read_are_a_warning(
    data: Any,
    counts: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def played(on_line: Callable[[str], None]) -> None:
        on_line(CONFIGURED)
        log = ctx.build / "ccache.log"
        if data == "folder":
            log.mkdir()
        elif data is not None:
            log.write_bytes(data)

    ctx = building(tmp_path, monkeypatch, played)
    configured(ctx.build / "tree", "120-real")
    assert compile_(ctx) == (0, counts)
    warned = [line for line in capsys.readouterr().out.splitlines() if "is not known" in line]
    assert len(warned) == (0 if counts or data is None else 1)


@pytest.mark.parametrize("stats", ["", "{}", "[]", '{"stats": 1}', "null"])
def test_unknown_statistics_of_sccache_are_a_warning(stats: str, tmp_path: Path) -> None:
    ctx = fakes.context(tmp_path, spec=fakes.spec(cache="sccache"))
    assert compilation._cache_counts(ctx, tmp_path / "none", [stats]) == {}
    assert compilation._cache_counts(ctx, tmp_path / "none", []) == {}


def test_an_sccache_that_has_ended_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def capture(words: Sequence[str], **_: Any) -> Finished:
        gone = "--show-stats" in words
        return Finished(tuple(words), int(gone), "cannot\nconnect" if gone else "", 0.0)

    monkeypatch.setattr(programs, "capture", capture)
    monkeypatch.setattr("sessions.fetch.build_tools.tools", lambda _: Path("/tools"))
    ctx = fakes.context(tmp_path, spec=fakes.spec(cache="sccache"))
    with compilation._sccache(ctx, {}) as stats:
        pass
    assert stats == []
    assert "cannot connect" in capsys.readouterr().out


HEADER = "# ninja log v7\n"
STEP = "5\t105\t1795000000105000000\ta.o\tc0ffee\n"
GRAPH = "build a.o: CXX_COMPILER__a /s/a.cpp\n"


GOOD = (HEADER + STEP).encode(), GRAPH.encode()
UNREADABLE: dict[str, tuple[bytes | None, bytes | None]] = {
    "version": (b"# ninja log v8\n" + STEP.encode(), GOOD[1]),
    "empty": (b"", GOOD[1]),
    "no-step": (HEADER.encode(), GOOD[1]),
    "path-not-utf-8": (GOOD[0].replace(b"a.o", b"a\xff.o"), GOOD[1]),
    "graph-not-utf-8": (GOOD[0], b"build a.o: CXX_COMPILER__a /s/\xff.cpp\n"),
    "no-number": ((HEADER + "5\tx\t1\ta.o\tc\n").encode(), GOOD[1]),
    "cut": ((HEADER + "5\t105\n").encode(), GOOD[1]),
    "no-colon": (GOOD[0], b"build a.o CXX_COMPILER__a /s/a.cpp\n"),
    "circle": (GOOD[0], b"build a.o: CXX_COMPILER__a a.o\n"),
    "no-graph": (GOOD[0], None),
    "no-log": (None, GOOD[1]),
    "year-too-large": (GOOD[0].replace(b"1795000000105000000", b"9" * 30), GOOD[1]),
}


def with_logs(root: Path, log: bytes | None, graph: bytes | None) -> Context:
    ctx = fakes.context(root)
    (ctx.build / "tree").mkdir(parents=True)
    for name, data in ((".ninja_log", log), ("build.ninja", graph)):
        if data is not None:
            (ctx.build / "tree" / name).write_bytes(data)
    records.write(ctx.record("steps"), "steps", {"of": "an earlier build"})
    return ctx


@pytest.mark.parametrize("name", UNREADABLE)
def test_timing_is_unknown_if_the_log_cannot_be_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = with_logs(tmp_path, *UNREADABLE[name])
    assert compilation.timing(ctx, 2, {}) == {}
    assert not ctx.record("steps").exists()
    (line,) = capsys.readouterr().out.splitlines()
    assert "what ran when is not known" in line


def test_timing_of_a_good_log(tmp_path: Path) -> None:
    ctx = with_logs(tmp_path, *GOOD)
    assert compilation.timing(ctx, 2, {})["seconds"] == 0.1
    assert records.read(ctx.record("steps"), "steps", Timeline) is not None
