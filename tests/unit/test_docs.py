"""The documents say what the code does."""

from __future__ import annotations

import ast
import itertools
import re

from sessions.command_line import option_list, session_order
from sessions.targets import targets_file
from tests import fakes

README = (fakes.ROOT / "README.md").read_text(encoding="utf-8")
SPANISH = (fakes.ROOT / "README.es.md").read_text(encoding="utf-8")
CONTRIBUTING = (fakes.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (fakes.ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TARGETS = targets_file.load((fakes.ROOT / "targets.toml").read_text(encoding="utf-8"), "linux")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the README."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), section.splitlines())
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def sessions() -> set[str]:
    tree = ast.parse((fakes.ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_of_targets_is_that_of_targets_toml() -> None:
    said = {row[0].strip("`"): (row[2], row[3].strip("`")) for row in rows("Which target is mine?")}
    assert said == {
        name: (table.version, ";".join(table.archs) or "none") for name, table in TARGETS.items()
    }


def test_every_session_that_the_readme_names_is_one() -> None:
    named = set(re.findall(r"(?:nox|noxfile\.py) -s ([a-z_]+)", README))
    assert len(named) >= 7
    assert named <= sessions()


def test_every_option_the_documents_name_is_one() -> None:
    known = {option.flag for option in option_list.OPTIONS}
    foreign = {
        "--force-reinstall",
        "--no-deps",
        "--no-annotate",
        "--no-header",
        "--python-version",
        "--universal",
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README + ARCHITECTURE))
    assert named - foreign <= known


TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "sessions/**/*.py", "targets.toml", "noxfile.py")
    for path in fakes.ROOT.glob(pattern)
)


def commands(text: str) -> list[tuple[list[str], list[str]]]:
    """Sessions and options of every nox command in a text; in code, over the ends of strings."""
    joined = re.sub(r"\"\s*\n\s*f?\"", "", text)
    found = re.findall(r"(?:nox|noxfile\.py) -s ((?:[a-z_]+ )+)-- ([^\n`#;:,()]*)", joined)
    return [(names.split(), re.findall(r"--[a-z-]+", words)) for names, words in found]


def test_every_command_that_a_text_names_is_taken() -> None:
    found = [
        (path, names, flags)
        for path in TEXTS
        for names, flags in commands(path.read_text(encoding="utf-8"))
    ]
    assert len(found) > 30
    for path, names, flags in found:
        assert set(names) <= set(session_order.SESSIONS), path
        stages = [name for name in names if name in session_order.REQUIRES]
        for flag in flags if stages else []:
            option = option_list.BY_FIELD[flag[2:].replace("-", "_")]
            assert option_list.takes(option, stages, given="--wheel" in flags), (path, names, flag)


def test_a_command_is_found_over_the_ends_of_strings() -> None:
    assert commands('"nox -s wheel -- --fresh "\n    f"--target {x}"') == [
        (["wheel"], ["--fresh", "--target"])
    ]


def test_every_session_is_in_the_architecture() -> None:
    names = [path.name for path in (fakes.ROOT / "sessions").glob("*/main_*.py")]
    assert len(names) > 10
    assert [name for name in names if name not in ARCHITECTURE] == []


def test_every_module_that_the_architecture_names_is_there() -> None:
    folders = [fakes.ROOT / name for name in ("sessions", "tests", "lab")]
    there = {path.name for folder in folders for path in folder.rglob("*.py")} | {"noxfile.py"}
    named = set(re.findall(r"\b[a-z_]+\.py\b", ARCHITECTURE))
    assert named - there == set()
    # Those of a folder of their own are named by the folder, and types are in each model.py.
    apart = ("data", "overlay", "documents", "index")
    ours = {
        path.name
        for path in (fakes.ROOT / "sessions").rglob("*.py")
        if path.parent.name not in apart and not path.name.startswith("__init__")
    }
    assert ours - named - {"model.py"} == set()


def test_every_file_that_contributing_names_is_there() -> None:
    named = set(re.findall(r"sessions/[\w/.]+\.\w+", CONTRIBUTING))
    assert len(named) > 15
    assert [path for path in sorted(named) if not (fakes.ROOT / path).exists()] == []


def test_the_documents_have_no_gaps_left() -> None:
    pages = [*fakes.ROOT.glob("*.md"), *(fakes.ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.findall(r"@[A-Z0-9]+@", text) == []
    assert re.findall(r"^(?:<<<<<<<|>>>>>>>) .*$", text, re.MULTILINE) == []  # git's, of a merge


# ---- README.es.md says the same -----------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """Everything in code fences, without the comments behind commands, which are translated."""
    found = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r" +# .*$", "", block, flags=re.MULTILINE) for block in found]


def outline(text: str) -> list[str]:
    """What both languages share, in its order: headings by depth, tables by what a row holds."""
    made, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if fenced:
            continue
        if line.startswith("#"):
            made.append(line.split(" ")[0])
        elif line.startswith("|"):
            cells = line.strip("|").split("|")
            made.append(" ".join(f"{len(cells)}: {sorted(facts(cell))}" for cell in cells))
    return made


def facts(text: str) -> list[str]:
    """Code, numbers and the targets of links: what no language changes.

    English writes 10,839, and Spanish a space that does not break in place of the comma.
    """
    plain = re.sub(r"(?<=\d)[,\u00a0](?=\d{3}\b)", "", text)
    return re.findall(r"`[^`]+`|\]\([^#)][^)]*\)|\d[\d.]*\d|\d", plain)


def test_both_readmes_have_the_same_commands_and_outputs() -> None:
    assert blocks(SPANISH) == blocks(README)
    assert len(blocks(README)) == 2


def test_both_readmes_have_the_same_headings_and_tables() -> None:
    for mine, theirs in zip(outline(SPANISH), outline(README), strict=True):
        assert mine == theirs


def prose(text: str) -> set[str]:
    """The code, numbers and links outside of code fences."""
    plain = re.sub(r"^```\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = {" ".join(fact.split()) for fact in facts(plain)}
    return found - {"](README.md)", "](README.es.md)"}


def test_both_readmes_name_the_same_code_numbers_and_pages() -> None:
    assert prose(SPANISH) == prose(README)


PAGES = sorted(path.relative_to(fakes.ROOT).as_posix() for path in fakes.ROOT.glob("docs/*.md"))


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 125


def test_every_test_that_a_document_names_is_there() -> None:
    files = list((fakes.ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    for path in files:
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = set()
    for page in (fakes.ROOT / "docs").glob("*.md"):
        named |= set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    assert len(named) > 40
    assert named <= there, sorted(named - there)


def test_every_page_that_a_document_links_to_is_there() -> None:
    for name in ["README.md", "README.es.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *PAGES]:
        path = fakes.ROOT / name
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert "://" in link or (path.parent / link).exists(), (name, link)


def test_a_difference_between_the_readmes_would_be_noticed() -> None:
    assert outline(SPANISH.replace("72.4 MB", "72.5 MB")) != outline(README)
    assert outline(SPANISH.replace("| `ada`", "| `adas`")) != outline(README)
    assert blocks(SPANISH.replace("-s wheel ", "-s wheels ")) != blocks(README)
