"""The documents against the repository: links lead somewhere, and files that are named exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from node.config.settings import OPTIONS

ROOT = Path(__file__).parents[3]
PACKAGES = ("node", "protocols", "discovery", "netsim")
SOURCES = (*PACKAGES, "scripts", "tests")
TOP = (*SOURCES, "docs", "config")
HISTORY = "CHANGELOG.md"
"""It may name what is gone."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PLACED = re.compile(r"`([A-Za-z_.]+)` in\s+\[`[^`]+`\]\(([^)#]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
COMMENT = re.compile(r"(?:^|\s)#\s.*")
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(
    r"(?:\./)?(?P<path>[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\.(?:py|md|toml|yaml|json)|requirements[a-z-]*\.lock)"
)
PLACE = re.compile(rf"(?:\./)?(?P<path>scripts/[a-z]+|(?:{'|'.join(TOP)})(?:/[a-z0-9_]+)*/)")
MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_0-9]+)+")
ELSEWHERE = re.compile(r"\b(?:DESIGN|LIBP2P|STACK|HOUSE|STYLE)\b|\bUCXL\.md\b|\bUCXL,? sections? \d")
"""Documents that are not in the repository."""
SETTINGS = {name for option in OPTIONS for name in option.names}


def documents() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in _parts(path)))


def sources() -> list[Path]:
    found = [path for top in SOURCES for path in (ROOT / top).rglob("*") if path.is_file()]
    return sorted(p for p in found if p.suffix == ".py" or (not p.suffix and p.parent.name == "scripts"))


def _parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).parts


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- reading ------------------------------------------------------------------------------------------------------


def links(document: Path) -> list[str]:
    """The targets of a document's links, those to other sites left out."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [target for target in LINK.findall(text) if not target.startswith(("http://", "https://"))]


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading).lower())
        slug = slug.replace(" ", "-")
        number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def target_of(document: Path, link: str) -> tuple[Path, str]:
    file, _, anchor = link.partition("#")
    return ((document.parent / file).resolve() if file else document), anchor


@cache
def remarks(source: Path) -> tuple[tuple[int, str], ...]:
    """Docstrings (those of attributes too) and comments, with the lines where they begin."""
    text = source.read_text(encoding="utf-8")
    found = [(number, mark[0]) for number, line in enumerate(text.splitlines(), 1) if (mark := COMMENT.search(line))]
    if source.suffix == ".py":
        statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
        values = ((node.lineno, node.value.value) for node in statements if isinstance(node.value, ast.Constant))
        found += [(line, value) for line, value in values if isinstance(value, str)]
    return tuple(found)


def missing(text: str, beside: Path) -> list[str]:
    """Files, folders and modules named in backticks that are neither in the repository, from its root, nor in `beside`.

    What is the text of a link is left out: the link says where it is.
    """
    found = []
    for code in CODE.findall(LINK.sub("", text)):
        named = FILE.fullmatch(code) or PLACE.fullmatch(code)
        if named and not (ROOT / named["path"]).exists() and not (beside / named["path"]).exists():
            found.append(code)
        if MODULE.fullmatch(code) and code not in SETTINGS and not _is_module(code):
            found.append(code)
    return found


def _is_module(dotted: str) -> bool:
    """A module, a package, or a name inside of one."""
    for end in (dotted, dotted.rpartition(".")[0], dotted.rpartition(".")[0].rpartition(".")[0]):
        place = ROOT / end.replace(".", "/")
        if place.with_suffix(".py").is_file():
            last = dotted.removeprefix(end).strip(".").split(".")[0]
            text = place.with_suffix(".py").read_text(encoding="utf-8")
            return not last or re.search(rf"\b{last}\b", text) is not None
        if place.is_dir() and end == dotted:
            return True
    return False


# -- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    broken = []
    for link in links(document):
        target, anchor = target_of(document, link)
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        reached.add(document)
        targets = (target_of(document, link)[0] for link in links(document))
        ahead += [target for target in targets if target.suffix == ".md" and target not in reached]
    assert [name_of(document) for document in documents() if document not in reached] == []


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_a_name_that_a_document_places_in_a_file_is_there(document: Path) -> None:
    """As in: `Members.wanted` in [`node/swarm/members.py`](...)."""
    wrong = []
    for name, link in PLACED.findall(document.read_text(encoding="utf-8")):
        text = target_of(document, link)[0].read_text(encoding="utf-8")
        wrong += [f"{name} in {link}" for part in name.split(".") if not re.search(rf"\b{part}\b", text)]
    assert wrong == []


PARTS = ("Context.", "Choice.", "Cost.", "What would change our mind.")


@pytest.mark.parametrize("decision", sorted((ROOT / "docs/decisions").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_decision_has_its_number_and_its_four_parts(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(decision.stem[:2])}. ")
    assert tuple(re.findall(r"^\*\*([A-Z][a-z ]+\.)\*\*", text, re.MULTILINE)) == PARTS


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [path for path in documents() if path.name != HISTORY], ids=name_of)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    assert missing(FENCE.sub("", document.read_text(encoding="utf-8")), document.parent) == []


def test_every_file_that_a_docstring_or_a_comment_names_exists() -> None:
    """From the root of the repository, or next to the file that names it."""
    wrong = [
        f"{name_of(source)}:{line}: {one}"
        for source in sources()
        for line, text in remarks(source)
        for one in missing(text, source.parent)
    ]
    assert wrong == []


def test_no_docstring_or_comment_refers_to_a_document_that_is_not_here() -> None:
    wrong = [
        f"{name_of(source)}:{line}: {found[0]}"
        for source in sources()
        if source != Path(__file__)
        for line, text in remarks(source)
        if (found := ELSEWHERE.search(text))
    ]
    assert wrong == []


VAGUE = re.compile(r"\b(whoever|somebody)\b", re.IGNORECASE)


def test_texts_name_who_does_something() -> None:
    """In documents, docstrings, comments and messages of the program, as `CONTRIBUTING.md` says."""
    files = [
        path for path in (*documents(), *sources()) if path.name != "CONTRIBUTING.md" and _parts(path)[0] != "tests"
    ]
    wrong = [
        f"{name_of(path)}:{number}: {found[0]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := VAGUE.search(line))
    ]
    assert wrong == [], "name the peer, the node, the caller or the operator that is meant"


# -- the checks themselves ----------------------------------------------------------------------------------------


def test_a_file_that_is_gone_is_found_and_one_that_is_here_is_not(tmp_path: Path) -> None:
    text = "`node/nowhere.py` and `nothing.py`, `node.app.never`, but `node/app.py`, `scripts/test`, `node/api/`"
    assert missing(text, tmp_path) == ["node/nowhere.py", "nothing.py", "node.app.never"]
    assert missing("`app.py`, `node.app.run`, `node.config`, `a.b`", ROOT / "node") == []


def test_anchors_are_those_that_github_makes(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A `code`, and more\n## [Link](b.md) two\n```\n# no heading\n```\n## Same\n## Same\n")
    assert anchors(document) == {"a-code-and-more", "link-two", "same", "same-1"}
