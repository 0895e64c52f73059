"""How large the project is, and what a reader of a script has to open: python tests/count_reach.py

Tokens are counted without comments and docstrings. A script reaches the files of network/ and
utils/ that it imports, directly or not, also those imported within functions.
"""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {'scripts': '*-*/*.py', 'network': 'network/*.py', 'utils': 'utils/*.py', 'root': '*.py',
           'tools': 'tools/*.py', 'dataset': 'dataset/*.py', 'tests': 'tests/**/*.py'}
CODE = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)


def counts(path: Path) -> list[int]:
    """Lines, tokens, functions and raises of a file."""
    source = path.read_text()
    nodes = list(ast.walk(ast.parse(source)))
    docs = {node.body[0].lineno for node in nodes
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None}
    tokens = sum(token.type in CODE and not (token.type == tokenize.STRING
                                             and token.start[0] in docs)
                 for token in tokenize.generate_tokens(io.StringIO(source).readline))
    return [source.count('\n'), tokens, *(sum(isinstance(node, kind) for node in nodes)
                                          for kind in (ast.FunctionDef, ast.Raise))]


def imports(path: Path) -> set[Path]:
    """The files of network/ and utils/ that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    found = {ROOT / f'{name.replace(".", "/")}{end}' for name in names
             if name.partition('.')[0] in ('network', 'utils') for end in ('.py', '/__init__.py')}
    return set(filter(Path.is_file, found))


def reached(path: Path) -> set[Path]:
    found, waiting = set(), {path}
    while waiting:
        found |= waiting
        waiting = set().union(*map(imports, waiting)) - found
    return found


if __name__ == '__main__':
    for folder, pattern in FOLDERS.items():
        print(folder, *map(sum, zip(*map(counts, ROOT.glob(pattern)), strict=True)))
    for script in sorted(ROOT.glob('*-*/t*.py')):
        files = reached(script)
        print(script.relative_to(ROOT), len(files), sum(counts(file)[0] for file in files))
