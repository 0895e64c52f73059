"""docs/architecture.md names files, functions and classes: they must exist."""

import ast
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT

TEXT = (ROOT / 'docs' / 'architecture.md').read_text()


def references() -> Iterator[tuple[str, str]]:
    """(file, name) of each `file.py:name`, and of each name in `file.py`: `name`, `name`."""
    yield from re.findall(r'`([\w/]+\.py):([\w.]+)`', TEXT)
    for path, names in re.findall(r'`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)', TEXT):
        yield from ((path, name) for name in re.findall(r'[\w.]+', names))


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


def test_folders_of_the_tree_exist():
    tree = TEXT.partition('## Folders')[2].split('```')[1]
    names = re.findall(r'^(\S+(?: {2}\S+)*) {2,}', tree, re.MULTILINE)
    for name in ' '.join(names).split():
        if re.fullmatch(r'[\w/-]+(/|\.py)', name):
            assert (ROOT / name).exists(), name
