"""Reading a wheel's name, METADATA, WHEEL and RECORD, and which libraries its Python loads."""

from __future__ import annotations

import base64
import hashlib

import pytest

from sessions.verify import metadata
from sessions.verify.metadata import Metadata
from sessions.verify.wheel_facts import Binding

INFO = "llama_cpp_python-0.3.16.dist-info"
FILE = "llama_cpp_python-0.3.16-cp311-cp311-manylinux_2_35_x86_64.whl"
METADATA = b"""\
Metadata-Version: 2.2
Name: llama_cpp_python
Version: 0.3.16
Requires-Python: >=3.8
Requires-Dist: numpy>=1.20.0
Requires-Dist: PyYAML>=5.1; extra == "server"

# A readme

Requires-Dist: nothing, for this is not a header
"""
WHEEL = b"""\
Wheel-Version: 1.0
Generator: scikit-build-core 1.1.2
Root-Is-Purelib: false
Tag: cp311-cp311-manylinux_2_35_x86_64
"""
TEXTS = {f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL, f"{INFO}/RECORD": b""}


def read(file: str = FILE, *, core: bytes = METADATA, wheel: bytes = WHEEL) -> Metadata:
    """The metadata of a sound wheel, with another file name or other texts."""
    return metadata.read(file, {**TEXTS, f"{INFO}/METADATA": core, f"{INFO}/WHEEL": wheel})


def test_read_returns_the_fields_of_a_sound_wheel() -> None:
    assert read() == Metadata(
        name="llama-cpp-python",
        version="0.3.16",
        tags=("cp311-cp311-manylinux_2_35_x86_64",),
        metadata_name="llama_cpp_python",
        metadata_version="0.3.16",
        requires_python=">=3.8",
        requires=("numpy>=1.20.0", 'PyYAML>=5.1; extra == "server"'),
        wheel_tags=("cp311-cp311-manylinux_2_35_x86_64",),
        purelib=False,
        generator="scikit-build-core 1.1.2",
        problems=(),
    )


@pytest.mark.parametrize(
    ("file", "version", "tags"),
    [
        (
            "llama_cpp_python-0.3.36-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "0.3.36",
            ("py3-none-manylinux2014_x86_64", "py3-none-manylinux_2_17_x86_64"),
        ),
        (
            "llama_cpp_python-0.3.16+cu131-cp311-cp311-win_amd64.whl",
            "0.3.16+cu131",
            ("cp311-cp311-win_amd64",),
        ),
        (
            "llama_cpp_python-0.3.16-1local-cp311-cp311-linux_x86_64.whl",
            "0.3.16",
            ("cp311-cp311-linux_x86_64",),
        ),
    ],
    ids=["two-platforms", "local-version", "build-number"],
)
def test_read_splits_the_file_name(file: str, version: str, tags: tuple[str, ...]) -> None:
    found = metadata.read(file, {m.replace("0.3.16", version): text for m, text in TEXTS.items()})
    assert (found.name, found.version, found.tags) == ("llama-cpp-python", version, tags)
    assert found.problems == ()


@pytest.mark.parametrize(
    "file",
    [
        "llama.whl",
        "llama_cpp_python.zip",
        "llama_cpp_python-0.3.16-cp311-cp311.whl",
        "llama_cpp_python-new-cp311-cp311-linux_x86_64.whl",
        "llama__cpp-0.3.16-cp311-cp311-linux_x86_64.whl",
        "llama_cpp_python-0.3.16-local-cp311-cp311-linux_x86_64.whl",
        "",
    ],
)
def test_an_invalid_file_name_is_a_problem(file: str) -> None:
    found = read(file)
    assert (found.name, found.version, found.tags) == ("", "", ())
    assert [line for line in found.problems if line.startswith("the file name: ")]
    # The contents are read nevertheless.
    assert found.metadata_version == "0.3.16"


def texts(old: str, new: str) -> dict[str, bytes]:
    """The metadata in another folder."""
    return {name.replace(old, new): text for name, text in TEXTS.items()}


@pytest.mark.parametrize(
    ("texts", "problems"),
    [
        *(
            ({n: t for n, t in TEXTS.items() if n != f"{INFO}/{part}"}, (f"no {part}",))
            for part in ("METADATA", "WHEEL", "RECORD")
        ),
        (
            {"llama_cpp/__init__.py": b""},
            ("0 .dist-info folders: none", "no METADATA", "no WHEEL", "no RECORD"),
        ),
        (
            {**TEXTS, "numpy-2.0.dist-info/METADATA": b"Name: numpy\n"},
            (f"2 .dist-info folders: {INFO}, numpy-2.0.dist-info",),
        ),
        (
            texts("llama_cpp_python", "numpy"),
            ("numpy-0.3.16.dist-info is not of llama-cpp-python",),
        ),
        *(
            (
                texts("0.3.16", version),
                (f"llama_cpp_python-{version}.dist-info is not of version 0.3.16",),
            )
            for version in ("9.9", "0.3.16+cu131", "", "new")
        ),
        (texts("0.3.16", "0.3.16.0"), ()),  # the same version
    ],
)
def test_read_shows_problems_of_the_dist_info_folder(
    texts: dict[str, bytes], problems: tuple[str, ...]
) -> None:
    found = metadata.read(FILE, texts)
    assert found.problems == problems
    if len(problems) == 4:
        assert (found.metadata_name, found.metadata_version, found.wheel_tags) == ("", "", ())


@pytest.mark.parametrize(
    ("line", "purelib"),
    [
        (b"Root-Is-Purelib: false\n", False),
        (b"root-is-purelib: False\n", False),
        (b"Root-Is-Purelib: true\n", True),
        (b"Root-Is-Purelib: 0\n", True),
        (b"", True),
    ],
    ids=["false", "spelt-otherwise", "true", "neither", "missing"],
)
def test_purelib_is_true_unless_wheel_has_false(line: bytes, purelib: bool) -> None:
    assert read(wheel=b"Wheel-Version: 1.0\n" + line).purelib is purelib


def test_read_returns_every_tag_of_wheel() -> None:
    found = read(wheel=b"Tag: py3-none-b\nTag: py3-none-a\n")
    assert found.wheel_tags == ("py3-none-a", "py3-none-b")


def test_windows_line_ends_are_not_part_of_a_value() -> None:
    found = read(core=METADATA.replace(b"\n", b"\r\n"), wheel=WHEEL.replace(b"\n", b"\r\n"))
    assert found == read()


@pytest.mark.parametrize(
    "text",
    [b"", b"\x00\xff" * 100, b"Name", b": x\n", b"Name: \xff\xfe\n", b"\n\nName: x\n"],
    ids=["empty", "binary", "no-colon", "no-key", "no-utf8", "body-only"],
)
def test_a_text_without_headers_has_no_fields(text: bytes) -> None:
    found = read(core=text, wheel=text)
    assert (found.metadata_version, found.requires, found.wheel_tags) == ("", (), ())


# ---- RECORD -------------------------------------------------------------------------------------

RECORD = f"{INFO}/RECORD"
FILES = {"llama_cpp/a.py": b"a = 1\n", "llama_cpp/b.py": b"", 'llama_cpp/"c", d.py': b"c"}


def line(name: str, data: bytes, digest: str | None = None, size: str | None = None) -> str:
    code = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    quoted = '"' + name.replace('"', '""') + '"' if '"' in name else name
    return (
        f"{quoted},{f'sha256={code}' if digest is None else digest},"
        f"{len(data) if size is None else size}\n"
    )


LINES = {name: line(name, data) for name, data in FILES.items()}
OWN = f"{RECORD},,\n"


def differences(text: str, *more: str, unread: str = "") -> list[str]:
    """The problems of a RECORD of the three files and more; ``unread`` is a damaged file."""
    members = {name: len(data) for name, data in FILES.items()}
    members |= {RECORD: len(text), **dict.fromkeys(more, 9)}
    digests = {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items() if name != unread
    }
    return list(metadata.record_problems({RECORD: text.encode()}, members, digests))


WHOLE = "".join(LINES.values()) + OWN
A, B, C = LINES


ABSENT = [f"{C}: not listed", f"{A}: not listed", f"{B}: not listed"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (WHOLE, []),
        (WHOLE.replace("\n", "\r\n"), []),
        (WHOLE.replace(LINES[A], ""), [f"{A}: not listed"]),
        (WHOLE + "llama_cpp/z.py,sha256=x,1\n", ["llama_cpp/z.py: listed, and not there"]),
        (WHOLE + LINES[A], [f"{A}: listed twice"]),
        *(
            (WHOLE.replace(LINES[A], changed), [f"{A}: another hash than in RECORD"])
            for changed in (
                line(A, FILES[A], digest="sha256=AAAA"),
                line(A, FILES[A], digest=""),
                LINES[A].replace(",6", "=,6"),  # padded
            )
        ),
        (
            WHOLE.replace(LINES[A], line(A, FILES[A], size="7")),
            [f"{A}: 6 bytes, 7 in RECORD"],
        ),
        (
            WHOLE.replace(LINES[A], line(A, FILES[A], size="")),
            [f"{A}: 6 bytes, no size in RECORD"],
        ),
        (
            WHOLE + "three, is, not, four\n",
            ["a line that is not a record: 'three, is, not, four'"],
        ),
        ("", ABSENT),
        (OWN + "x,,\n", [*ABSENT, "x: listed, and not there"]),
    ],
)
def test_record_problems_are_all_differences_from_the_members(
    text: str, problems: list[str]
) -> None:
    assert differences(text) == problems


def test_record_need_not_list_itself_and_its_signatures() -> None:
    assert differences(WHOLE.removesuffix(OWN), f"{RECORD}.jws", f"{RECORD}.p7s") == []


def test_a_member_that_could_not_be_read_is_a_problem() -> None:
    assert differences(WHOLE, unread=A) == [f"{A}: could not be read"]


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({}, "there is no RECORD"),
        ({f"llama_cpp/{RECORD}": WHOLE.encode()}, "there is no RECORD"),
        ({RECORD: b"\xff\xfe\x00\n"}, "RECORD cannot be read: 'utf-8' codec can't decode"),
        ({RECORD: b'"' + b"x" * 200_000}, "RECORD cannot be read: field larger than field limit"),
    ],
    ids=["none", "elsewhere", "not-utf8", "endless-field"],
)
def test_a_record_that_cannot_be_read_is_the_only_problem(
    texts: dict[str, bytes], problem: str
) -> None:
    members = dict.fromkeys(texts, 6) or {A: 6}
    (found,) = metadata.record_problems(texts, members, {})
    assert found.startswith(problem)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_a_longer_hash_is_checked_for_texts_that_were_kept(algorithm: str) -> None:
    def problems(data: bytes, texts: dict[str, bytes]) -> list[str]:
        code = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=")
        record = line(A, FILES[A], digest=f"{algorithm}={code.decode()}") + OWN
        members = {A: len(FILES[A]), RECORD: len(record)}
        digests = {A: hashlib.sha256(FILES[A]).hexdigest()}
        return list(metadata.record_problems({RECORD: record.encode(), **texts}, members, digests))

    assert problems(FILES[A], {A: FILES[A]}) == []
    assert problems(b"other", {A: FILES[A]}) == [f"{A}: another hash than in RECORD"]
    assert problems(FILES[A], {}) == [
        f"{A}: RECORD has its {algorithm}, which is checked for small texts only"
    ]


# ---- What the package's Python loads ------------------------------------------------------------

IMPORTER = "from . import llama_cpp\n"
LOADS_BY_CONSTANT = """\
_lib_base_name = "llama"
_lib = load_shared_library(_lib_base_name, _base_path)
ctypes_function = ctypes_function_for_shared_library(_lib)
"""


def bindings(module: str, importer: str = IMPORTER, **more: str) -> tuple[Binding, ...]:
    """The bindings of a package with two modules and more ("server__app": server/app.py)."""
    texts = {"llama_cpp/llama_cpp.py": module, "llama_cpp/__init__.py": importer}
    texts |= {f"llama_cpp/{name.replace('__', '/', 1)}.py": text for name, text in more.items()}
    return metadata.bindings({name: text.encode() for name, text in texts.items()})


def bound(library: str = "llama", *functions: str, reached: bool = True) -> tuple[Binding, ...]:
    return (Binding("llama_cpp/llama_cpp.py", library, functions, reached),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(
            (text, bound())
            for text in (
                LOADS_BY_CONSTANT,
                'load_shared_library("llama", path)',
                'import ctypes_extensions as c\nlib = c.load_shared_library("llama", path)',
                'def _load():\n    return load_shared_library("llama", path)',
            )
        ),
        ('load_shared_library("", path)', bound("")),
        *(
            (text, ())
            for text in (
                "x = 1",
                'ctypes.CDLL("llama")',
                "load_shared_library()",
                "load_shared_library(name_of_elsewhere, path)",
                "load_shared_library(7, path)",
                'load_shared_library(f"lib{name}", path)',
                '# load_shared_library("llama", path)',
                '"""load_shared_library("llama", path)"""',
            )
        ),
    ],
)
def test_bindings_finds_the_library_that_a_module_loads(
    text: str, found: tuple[Binding, ...]
) -> None:
    assert bindings(text) == found


def test_bindings_finds_the_functions_that_a_module_looks_up() -> None:
    text = LOADS_BY_CONSTANT + (
        '@ctypes_function("llama_free", [c], None)\n'
        "def llama_free(ctx): ...\n"
        '@_ext.ctypes_function("llama_decode", [c, b], ctypes.c_int)\n'
        "def decode(ctx, batch): ...\n"
        "@functools.cache\n"
        "def mine(): ...\n"
        "@ctypes_function\n"
        "def no_call(): ...\n"
        "@ctypes_function()\n"
        "def no_name(): ...\n"
        "@ctypes_function(NAME, [], None)\n"
        "def name_of_elsewhere(): ...\n"
    )
    assert bindings(text) == bound("llama", "llama_free", "llama_decode")


FREE = '@ctypes_function("llama_free", [c], None)\ndef llama_free(ctx): ...\n'


@pytest.mark.parametrize(
    "text",
    [
        LOADS_BY_CONSTANT.replace("_lib =", "try:\n    _lib =").replace(
            "\nctypes_f", "\nexcept OSError:\n    raise\nctypes_f"
        ),
        LOADS_BY_CONSTANT.replace("_lib =", "_lib: ctypes.CDLL ="),
        LOADS_BY_CONSTANT.replace("_name =", "_name: str ="),
        LOADS_BY_CONSTANT.replace("ctypes_function =", "ctypes_function: Decorator ="),
        LOADS_BY_CONSTANT.replace("(_lib_base_name, _base_path)", "(lib_base_name='llama', b=p)"),
        LOADS_BY_CONSTANT.replace("(_lib)", "(lib=_lib)"),
    ],
    ids=["try", "annotated", "annotated-name", "annotated-decorator", "keyword", "decorators"],
)
def test_bindings_reads_all_of_these_assignments(text: str) -> None:
    by_name = FREE.replace('"llama_free", [c], None', 'argtypes=[c], restype=None, name="llama_n"')
    assert bindings(text + FREE + by_name) == bound("llama", "llama_free", "llama_n")
    texts = {"llama_cpp/llama_cpp.py": (text + FREE).encode()}
    assert metadata.unparsed(texts, texts) == ()


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (LOADS_BY_CONSTANT, False),
        (LOADS_BY_CONSTANT + FREE.replace('"llama_free"', '"llama_" + "free"'), False),
        (LOADS_BY_CONSTANT + FREE + "mine = ctypes_function_for_shared_library(load())\n", False),
        ("ctypes_function = ctypes_function_for_shared_library(other._lib)\n" + FREE, False),
        (LOADS_BY_CONSTANT + FREE, True),
        ('libggml = load_shared_library("ggml", path)\n', True),  # upstream's _ggml.py
    ],
    ids=["nothing", "no-names", "another-library", "from-elsewhere", "a-function", "only-loads"],
)
def test_a_module_that_looks_up_functions_in_an_unknown_way_is_named(
    text: str, known: bool
) -> None:
    texts = {"llama_cpp/llama_cpp.py": text.encode()}
    assert metadata.unparsed(texts, texts) == (() if known else ("llama_cpp/llama_cpp.py",))


def test_each_library_of_a_module_has_the_functions_that_its_decorator_looks_up() -> None:
    text = (
        'base = load_shared_library("ggml-base", paths)\n'
        "base_function = ctypes_function_for_shared_library(base)\n"
        'ggml = load_shared_library("ggml", paths)\n'
        "ggml_function = ctypes_function_for_shared_library(ggml)\n"
        '@ggml_function("ggml_backend_load", [c], p)\ndef load(path): ...\n'
        '@base_function("ggml_log_set", [c], None)\ndef log(callback): ...\n'
        '@cached("not_a_function")\ndef mine(): ...\n'
    )
    assert bindings(text) == (
        *bound("ggml-base", "ggml_log_set"),
        *bound("ggml", "ggml_backend_load"),
    )


@pytest.mark.parametrize(
    "words",
    [
        '"llama_new", [], None, enabled=False',
        '"llama_new", [], None, required=False',
        '"llama_new", [], None, False',
    ],
    ids=["by-name", "by-name-of-a-fork", "by-place"],
)
def test_a_function_with_a_condition_is_not_required(words: str) -> None:
    text = LOADS_BY_CONSTANT + f"@ctypes_function({words})\ndef llama_new(): ...\n"
    assert bindings(text) == bound()


@pytest.mark.parametrize(
    ("importer", "more", "reached"),
    [
        *(
            (importer, {}, True)
            for importer in (
                "from . import llama_cpp",
                "from .llama_cpp import *",
                "from .llama_cpp import llama_decode",
                "import llama_cpp.llama_cpp",
                "import llama_cpp.llama_cpp as low",
                "from llama_cpp import llama_cpp",
                "from llama_cpp.llama_cpp import llama_decode as d",
                "def f():\n    from .llama_cpp import llama_decode",
                "if TYPE_CHECKING:\n    import llama_cpp.llama_cpp",
            )
        ),
        *(
            (importer, {}, False)
            for importer in (
                "",
                "from . import llama",
                "import llama_cpp",
                "from .server import llama_cpp",
                "from ..llama_cpp import x",
                "import llama_cpp.llama_cpp_more",
                "# import llama_cpp.llama_cpp",
            )
        ),
        # A relative import counts from the module's own folder.
        ("import llama_cpp.server.app", {"server__app": "from ..llama_cpp import x"}, True),
        ("import llama_cpp.server.app", {"server__app": "from .llama_cpp import x"}, False),
        ("", {"server__app": "import llama_cpp.llama_cpp"}, False),
        ("", {"a": "from . import b", "b": "from . import a, llama_cpp"}, False),
        ("from . import a", {"a": "from . import b", "b": "from . import a, llama_cpp"}, True),
        ("import llama_cpp.s.a", {"s____init__": "from .. import llama_cpp", "s__a": ""}, True),
        ("from . import s", {"s____init__": "from .. import llama_cpp"}, True),
    ],
)
def test_a_module_is_reached_if_importing_the_package_imports_it(
    importer: str, more: dict[str, str], reached: bool
) -> None:
    assert bindings(LOADS_BY_CONSTANT, importer, **more) == bound(reached=reached)


def test_a_library_that_init_loads_is_reached() -> None:
    found = bindings("", 'load_shared_library("llama", path)')
    assert found == (Binding("llama_cpp/__init__.py", "llama", (), True),)


def test_a_module_that_imports_itself_is_not_reached() -> None:
    assert bindings("import llama_cpp.llama_cpp\n" + LOADS_BY_CONSTANT, "") == bound(reached=False)


@pytest.mark.parametrize(
    "broken",
    ["def f(:\n", "x = (\n", "print 'x'\n", "a = 1\x00\n", "# coding: nonsense\n"],
    ids=["parameters", "bracket", "python-2", "nul", "encoding"],
)
def test_a_module_with_invalid_python_has_no_bindings_and_is_unparsed(broken: str) -> None:
    assert bindings(LOADS_BY_CONSTANT, broken_one=broken) == bound()
    assert bindings(broken) == ()
    assert metadata.unparsed(["llama_cpp/a.py"], {"llama_cpp/a.py": broken.encode()})


DEEP = ["-" * 100_000 + "1", "x" + ".a" * 3_000, "x = 1" + "+1" * 6_000]


@pytest.mark.parametrize("text", [*DEEP, "#" * (metadata.MODULE + 1)])
def test_a_module_that_is_too_deep_or_too_large_is_unparsed(text: str) -> None:
    texts = {"llama_cpp/a.py": text.encode(), "llama_cpp/b.py": b""}
    assert metadata.bindings(texts) == ()
    assert metadata.unparsed(texts, texts) == ("llama_cpp/a.py",)


def test_a_module_whose_text_was_not_kept_is_unparsed() -> None:
    members = ["llama_cpp/a.py", "llama_cpp/lib/libllama.so", "setup.py"]
    assert metadata.unparsed(members, {}) == ("llama_cpp/a.py",)


def test_bindings_reads_only_python_modules_of_the_package() -> None:
    text = b'load_shared_library("b", p)'
    others = {"other/a.py": text, "llama_cpp/a.txt": text, "llama_cpp_more/a.py": text}
    texts = {**others, "llama_cpp/a.py": b"\xff\xfe\x00", "llama_cpp/b.py": text}
    assert metadata.bindings(texts) == (Binding("llama_cpp/b.py", "b", (), False),)


def test_bindings_finds_all_libraries_of_a_package() -> None:
    found = bindings(
        LOADS_BY_CONSTANT,
        "from . import llama_cpp, llama_chat_format",
        mtmd_cpp='load_shared_library("mtmd", p)',
        llava_cpp='load_shared_library("llava", p)',
        llama_chat_format="def f():\n    import llama_cpp.mtmd_cpp as mtmd\n",
    )
    assert {(b.library, b.reached) for b in found} == {
        ("llama", True),
        ("llava", False),
        ("mtmd", True),
    }
