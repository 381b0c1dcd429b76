"""Reads one file that lists images with their labels: lines `path label`, or a CSV table."""

import csv
import dataclasses
import io

# Values of a column of attributes, which say if an image has the attribute.
_ATTRIBUTES = {"1": True, "0": False, "-1": False}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One image of a list.

    Attributes:
        line: its place in the file, counted from 1.
        path: as it is written.
        label: as it is written; of columns of attributes, the name of the only one it has.
        group: as it is written; "" = the list has none.
    """

    line: int
    path: str
    label: str
    group: str = ""


def read_rows(
    content: bytes,
    is_table: bool,
    path_column: str,
    label_columns: tuple[str, ...],
    group_column: str = "",
    *,
    needs_labels: bool = True,
) -> tuple[list[Row], list[str]]:
    """Reads all rows of a list.

    In lines, the label is what follows the last blank, so paths may hold blanks. Empty lines are
    passed over, and so are images of a table with none or several of the attributes.

    Args:
        content: of the file, in UTF-8; other bytes can be part of a path.
        is_table: it is a CSV table with a header; otherwise it has lines `path label`.
        path_column: of a table.
        label_columns: of a table: one that holds the label, or several attributes, which are 1 if
            an image has them, otherwise 0 or -1.
        group_column: of a table; "" = there are no groups.
        needs_labels: otherwise a table need not have these columns, and images with none or several
            of the attributes are kept; their label is "".

    Returns:
        The rows, and one line for each fault.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    if is_table:
        return _read_table(text, path_column, label_columns, group_column, needs_labels)
    if group_column:
        return [], [f"data.group_column={group_column} needs a table, whose name ends with .csv"]
    rows, faults = [], []
    # Not `splitlines`, because other separators of Unicode can be part of a name.
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.rsplit(None, 1)
        if len(parts) == 2:
            rows.append(Row(number, *parts))
        elif parts:
            faults.append(f"line {number}: wanted 'path label', got {line[:80]!r}")
    return rows, faults


def _read_table(
    text: str,
    path_column: str,
    label_columns: tuple[str, ...],
    group_column: str,
    needs_labels: bool,
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    faults: list[str] = []
    table = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(table, [])]
        if not (needs_labels or {*header}.issuperset(label_columns)):
            label_columns = ()
        wanted = [(path_column, "path_column"), *((name, "label_column") for name in label_columns)]
        wanted += [(group_column, "group_column")] if group_column else []
        for name, field in wanted:
            if header.count(name) != 1:
                found = ", ".join(map(repr, header[:20])) or "none"
                # The config takes these two before it sets other fields.
                images = f", or the argument {field}= of the config images," * (
                    name != group_column
                )
                # Not where a trained network reads a table: it has no fields.
                remedy = f"; data.{field}{images} names another" if needs_labels else ""
                return [], [f"wanted one column {name!r}; its columns: {found}{remedy}"]
        place, *labels = (header.index(name) for name in (path_column, *label_columns))
        group = header.index(group_column) if group_column else -1
        for cells in table:
            if not cells:
                continue
            if len(cells) != len(header):
                faults.append(
                    f"line {table.line_num}: has {len(cells)} cells, but {len(header)} columns"
                )
                continue
            values = [cells[i].strip() for i in labels] if labels else [""]
            if len(values) > 1:
                odd = [value for value in values if value not in _ATTRIBUTES]
                if odd:
                    faults.append(f"line {table.line_num}: {odd[0]!r} is none of 1, 0 and -1")
                    continue
                pairs = zip(label_columns, values, strict=True)
                values = [name for name, value in pairs if _ATTRIBUTES[value]]
                if len(values) != 1:
                    if needs_labels:
                        continue
                    values = [""]
            of_group = cells[group].strip() if group_column else ""
            if group_column and not of_group:
                faults.append(f"line {table.line_num}: column {group_column!r} is empty")
                continue
            rows.append(Row(table.line_num, cells[place].strip(), values[0], of_group))
    except csv.Error as error:
        faults.append(f"line {table.line_num}: {error}")
    return rows, faults
