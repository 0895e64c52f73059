"""What a reader of a stage script has to open: the files and lines that it reaches by imports.

    python tests/count_reach.py            of this checkout
    python tests/count_reach.py FOLDER     of another one

Imports inside functions count, those for type checkers alone do not.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ('network', 'utils')


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    print('| script | files | lines |\n| --- | --- | --- |')
    for script in [*sorted(root.glob('*-*/t*.py')), *root.glob('spol.py')]:
        files = reached(script, root)
        print(f'| {script.relative_to(root)} | {len(files)} | {sum(map(lines, files))} |')
    print('\n| file | imports | of the project |\n| --- | --- | --- |')
    counts = {path: [name.partition('.')[0] for name, _ in imports(path)]
              for package in PACKAGES for path in (root / package).rglob('*.py')}
    for path, names in sorted(counts.items(), key=lambda item: -len(item[1]))[:6]:
        own = sum(name in PACKAGES for name in names)
        print(f'| {path.relative_to(root)} | {len(names)} | {own} |')
    print('\n| package | files | lines |\n| --- | --- | --- |')
    for package in (*PACKAGES, 'tools', 'dataset', 'tests'):
        files = list((root / package).rglob('*.py'))
        print(f'| {package} | {len(files)} | {sum(map(lines, files))} |')


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def imports(path: Path, typing: bool = False) -> Iterator[tuple[str, list[str]]]:
    """(module, names that are imported from it) of each import statement; `typing`: also of those
    for type checkers."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, [alias.name for alias in node.names]
        elif not isinstance(node, ast.If) or typing or ast.unparse(node.test) != 'TYPE_CHECKING':
            waiting += ast.iter_child_nodes(node)


def reached(script: Path, root: Path) -> set[Path]:
    """The project's files that a script imports, directly or not, and the script itself."""
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for module, names in imports(path):
                waiting += files_of(module, names, root)
    return found


def files_of(module: str, names: list[str], root: Path) -> list[Path]:
    """The project's files that `from module import names` reads."""
    parts = module.split('.')
    if parts[0] not in PACKAGES:
        return []
    folders = [root.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    files = [folder / '__init__.py' for folder in folders] + [folders[-1].with_suffix('.py')]
    files += [folders[-1] / f'{name}.py' for name in names]
    if folders[-1].is_dir():  # names that the package imports when they are first used
        lazy = imports(folders[-1] / '__init__.py', typing=True)
        files += [root.joinpath(*other.split('.')).with_suffix('.py')
                  for other, others in lazy if set(names) & set(others)]
    return [file for file in files if file.is_file()]


if __name__ == '__main__':
    main()
