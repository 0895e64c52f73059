"""Boxes from a table as programs and spreadsheets write it: CSV with any usual delimiter."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from utils.errors import InputError
from utils.lists import parse_box

EXPECTED = 'expected rows of name,xmin,ymin,xmax,ymax in pixels'
NAMES = ('name', 'file', 'filename', 'file_name', 'image', 'image_name', 'path', 'image_path')
CORNERS = (('xmin', 'ymin', 'xmax', 'ymax'), ('x0', 'y0', 'x1', 'y1'), ('x1', 'y1', 'x2', 'y2'),
           ('x_min', 'y_min', 'x_max', 'y_max'), ('left', 'top', 'right', 'bottom'))

Box = tuple[float, ...]


def read_boxes(path: Path) -> Iterator[tuple[str, str, Box | None]]:
    """(file and line, name, box) of each row; the box is None where its fields are empty.

    A header may name other columns and another order. Raises InputError, with the line, for
    anything that is not a box in pixels.
    """
    rows = read_rows(path)
    columns = [0, 1, 2, 3, 4]
    if rows and not any(map(is_number, rows[0][1][1:])):
        columns = find_columns(*rows.pop(0))
    elif rows and len(rows[0][1]) != 5:
        where, row = rows[0]
        raise InputError(f'{where}: {EXPECTED}, found {",".join(row)[:80]!r}: add a header that '
                         'names the columns, or remove the others')
    fields = [[row[k].strip() if k < len(row) else '' for k in columns] for _, row in rows]
    numbers = [float(text) for _, *sides in fields for text in sides if is_number(text)]
    if numbers and max(map(abs, numbers)) <= 1:
        raise InputError(f'{path}: all boxes lie in 0 ... 1: they are fractions of the image '
                         '(YOLO?); give them in pixels, x times the width and y times the height')
    for (where, _), (name, *sides) in zip(rows, fields, strict=True):
        if any(sides) and not all(map(is_number, sides)):
            raise InputError(f'{where}: {EXPECTED}, found {",".join(sides)[:80]!r} after the name')
        try:
            yield where, name, parse_box(' '.join(sides), where) if any(sides) else None
        except InputError as error:
            raise InputError(f'{error}; or are these x y width height? Then write xmax = x + '
                             'width') from error


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """(file and line, fields) of the rows that are not empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f'cannot read {path} ({error.strerror}): check --boxes') from error
    text = decode(content)
    first = text.lstrip().partition('\n')[0]
    delimiter = max('\t;,|', key=first.count)  # the first of those that are as frequent
    rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    try:
        found = [(f'{path}, line {rows.line_num}', row) for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f'{path}, line {rows.line_num} cannot be read as CSV ({error}): '
                         f'{EXPECTED}') from error
    if delimiter != ',':  # decimal commas
        found = [(where, [row[0], *(field.replace(',', '.') for field in row[1:])])
                 for where, row in found]
    return found


def decode(content: bytes) -> str:
    """UTF-8, UTF-16 as PowerShell and Excel write it, or else Western European Windows."""
    if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return content.decode('utf-16', errors='replace')
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError:
        return content.decode('cp1252', errors='replace')


def find_columns(where: str, header: list[str]) -> list[int]:
    """The columns of name, xmin, ymin, xmax and ymax, by the header."""
    header = [field.strip().lower() for field in header]
    name = next((name for name in NAMES if name in header), None)
    corners = next((names for names in CORNERS if set(names) <= set(header)), None)
    if not name or not corners:
        raise InputError(f'{where}: {EXPECTED}, or a header with these names, found the header '
                         f'{",".join(header)[:80]!r}'
                         + ('; from width and height write xmax = x + width'
                            if {'w', 'width'} & set(header) else ''))
    return [header.index(column) for column in (name, *corners)]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
