"""The documents name sessions, options, files and tests that exist; both READMEs agree."""

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


def test_the_table_of_targets_is_up_to_date() -> None:
    table = {row[0].strip("`"): row[2:4] for row in rows("Which target is mine?")}
    expected = {
        name: [spec.version, f"`{';'.join(spec.archs)}`" if spec.archs else "none"]
        for name, spec in TARGETS.items()
    }
    assert table == expected


def test_every_session_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:nox|noxfile\.py) -s ([a-z_]+)", README))
    assert len(named) >= 7
    assert named <= sessions()


FOREIGN = "force-reinstall no-deps no-annotate no-header python-version universal"  # of pip and uv


def test_every_option_in_the_documents_exists() -> None:
    known = {option.flag for option in option_list.OPTIONS}
    known |= {f"--{name}" for name in FOREIGN.split()}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README + ARCHITECTURE)) <= known


TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "sessions/**/*.py", "targets.toml", "noxfile.py")
    for path in fakes.ROOT.glob(pattern)
)


def commands(text: str) -> list[tuple[list[str], list[str]]]:
    """The sessions and options of every nox command in a text; code may split it into strings."""
    joined = re.sub(r"\"\s*\n\s*f?\"", "", text)
    found = re.findall(r"(?:nox|noxfile\.py) -s ((?:[a-z_]+ )+)-- ([^\n`#;:,()]*)", joined)
    return [(names.split(), re.findall(r"--[a-z-]+", words)) for names, words in found]


def test_every_command_in_a_text_is_valid() -> None:
    found = [
        (path, names, flags)
        for path in TEXTS
        for names, flags in commands(path.read_text(encoding="utf-8"))
    ]
    assert len(found) > 30
    for path, names, flags in found:
        assert set(names) <= set(session_order.SESSIONS), path
        ours = [name for name in names if name in session_order.REQUIRES]
        for flag in flags if ours else []:
            option = option_list.BY_FIELD[flag[2:].replace("-", "_")]
            assert option_list.takes(option, ours, given="--wheel" in flags), (path, names, flag)


def test_a_command_is_found_if_code_splits_it_into_strings() -> None:
    text = '"nox -s wheel -- --fresh "\n    f"--target {x}"'
    assert commands(text) == [(["wheel"], ["--fresh", "--target"])]


def test_the_architecture_names_every_module_and_only_modules_that_exist() -> None:
    folders = [fakes.ROOT / name for name in ("sessions", "tests", "lab")]
    there = {path.name for folder in folders for path in folder.rglob("*.py")} | {"noxfile.py"}
    named = set(re.findall(r"\b[a-z_]+\.py\b", ARCHITECTURE))
    assert named - there == set()
    # It names these folders instead of their modules.
    apart = ("data", "overlay", "documents", "index")
    ours = {
        path.name
        for path in (fakes.ROOT / "sessions").rglob("*.py")
        if path.parent.name not in apart and not path.name.startswith("__init__")
    }
    assert ours - named == set()


def test_every_file_in_contributing_exists() -> None:
    named = set(re.findall(r"sessions/[\w/.]+\.\w+", CONTRIBUTING))
    assert len(named) > 15
    assert [path for path in sorted(named) if not (fakes.ROOT / path).exists()] == []


def test_the_documents_have_no_placeholders() -> None:
    pages = [*fakes.ROOT.glob("*.md"), *(fakes.ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.findall(r"@[A-Z0-9]+@", text) == []
    assert re.findall(r"^(?:<<<<<<<|>>>>>>>) .*$", text, re.MULTILINE) == []  # of a git merge


# ---- README.es.md --------------------------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """The code blocks, without the comments after commands, which are translated."""
    found = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r" +# .*$", "", block, flags=re.MULTILINE) for block in found]


def outline(text: str) -> list[str]:
    """What both languages have in common: the depths of headings, and the facts in tables."""
    found, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if fenced:
            continue
        if line.startswith("#"):
            found.append(line.split(" ")[0])
        elif line.startswith("|"):
            cells = line.strip("|").split("|")
            found.append(" ".join(f"{len(cells)}: {sorted(facts(cell))}" for cell in cells))
    return found


def facts(text: str) -> list[str]:
    """Code, numbers and the targets of links, which are not translated.

    English writes 10,839; Spanish has a non-breaking space instead of the comma.
    """
    plain = re.sub(r"(?<=\d)[,\u00a0](?=\d{3}\b)", "", text)
    return re.findall(r"`[^`]+`|\]\([^#)][^)]*\)|\d[\d.]*\d|\d", plain)


def test_both_readmes_have_the_same_commands_headings_and_tables() -> None:
    assert blocks(SPANISH) == blocks(README)
    assert len(blocks(README)) == 2
    assert outline(SPANISH) == outline(README)


def prose(text: str) -> set[str]:
    """The facts outside of code blocks."""
    plain = re.sub(r"^```\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = {" ".join(fact.split()) for fact in facts(plain)}
    return found - {"](README.md)", "](README.es.md)"}


def test_both_readmes_name_the_same_code_numbers_and_pages() -> None:
    assert prose(SPANISH) == prose(README)


PAGES = sorted(path.relative_to(fakes.ROOT).as_posix() for path in fakes.ROOT.glob("docs/*.md"))


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 125


def test_every_test_in_a_document_exists() -> None:
    files = list((fakes.ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    for path in files:
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = set()
    for page in (fakes.ROOT / "docs").glob("*.md"):
        named |= set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    assert len(named) > 40
    assert named <= there, sorted(named - there)


def test_every_page_that_a_document_links_to_exists() -> None:
    for name in ["README.md", "README.es.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *PAGES]:
        path = fakes.ROOT / name
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert "://" in link or (path.parent / link).exists(), (name, link)


def test_a_difference_between_the_readmes_is_found() -> None:
    assert outline(SPANISH.replace("72.4 MB", "72.5 MB")) != outline(README)
    assert outline(SPANISH.replace("| `ada`", "| `adas`")) != outline(README)
    assert blocks(SPANISH.replace("-s wheel ", "-s wheels ")) != blocks(README)
