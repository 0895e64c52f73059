"""docs/architecture.md and README.md name files, functions and classes: they must exist."""

import ast
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT

ARCHITECTURE, README = ROOT / 'docs' / 'architecture.md', ROOT / 'README.md'


def references() -> Iterator[tuple[str, str]]:
    """(file, name) of each name after `file.py`, as in `file.py`: `name`, `name`; `name`."""
    for document in (ARCHITECTURE, README):
        for path, names in re.findall(r'`([\w/]+\.py)`: ((?:`[\w.]+`(?:[,;] | and |))+)',
                                      document.read_text()):
            yield from ((path, name) for name in re.findall(r'`([\w.]+)`', names))


def defined(body: list[ast.stmt], name: str) -> bool:
    first, _, rest = name.partition('.')
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == first:
            return not rest or defined(node.body, rest)
        if isinstance(node, ast.Assign) and first in map(ast.unparse, node.targets):
            return not rest
    return False


@pytest.mark.parametrize(('path', 'name'), sorted(set(references())))
def test_what_is_named_exists(path, name):
    assert defined(ast.parse((ROOT / path).read_text()).body, name)


@pytest.mark.parametrize('document', [ARCHITECTURE, README], ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    text = document.read_text()
    links = re.findall(r'\]\((?!https?:)([^)#]+)', text)
    scripts = re.findall(r'(?<![\w/*-])(?:[\w-]+/)*[\w-]+\.(?:py|sh|ipynb)\b', text)
    assert len(links) > 0
    assert len(scripts) > 20
    missing = {link for link in links if not (document.parent / link).exists()}
    folders = ROOT, document.parent, ROOT / 'dataset', ROOT / 'cub200-seg'
    missing |= {path for path in scripts if not any((folder / path).exists() for folder in folders)}
    assert missing <= {'dataset/prepare_NAME.py'}


def test_the_tree_of_folders():
    tree = ARCHITECTURE.read_text().partition('## Files')[2].split('```')[1]
    names = re.findall(r'^(\S+(?: {2}\S+)*) {2,}', tree, re.MULTILINE)
    found = [name for line in names for name in line.split()]
    assert len(found) > 5
    for name in found:
        assert list(ROOT.glob(name.rstrip('/'))), name


def test_the_table_of_utils_is_complete():
    table = ARCHITECTURE.read_text().partition('| `utils/` | |')[2].partition('\n\n')[0]
    named = [name for row in table.splitlines()[2:]
             for name in re.findall(r'`(\w+)`', row.split('|')[1])]
    present = {path.stem for path in (ROOT / 'utils').glob('*.py')} - {'__init__'}
    assert sorted(named) == sorted(present)
