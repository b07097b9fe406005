"""What of a row is its document: one column, or several joined by a template."""

import re

from .block import ArrowBlock, arrow_block, text_array
from .failure import SourceFailure

TEMPLATE_HINT = "write columns in braces, as in '{title}\\n\\n{text}', and {{ or }} for a brace itself"


def _not_text(path, row, column, value):
    return SourceFailure(
        "SOURCE_CORRUPT",
        f"{path}: row {row}: {column!r} is {type(value).__name__}, not text",
        "every row must hold a string, or null, in the text column",
    )


def _value(record, column, path, row):
    value = record.get(column) if isinstance(record, dict) else record
    if value is None or isinstance(value, str):
        return value
    raise _not_text(path, row, column, value)


class Column:
    """The documents are a column."""

    template = None

    def __init__(self, name):
        self.names = [name]

    def block(self, arrays):
        """A block of this column's array, and how many documents were not valid UTF-8."""
        return arrow_block(arrays[0])

    def of(self, record, path, row):
        """The document of a parsed JSON record; None for a null."""
        if isinstance(record, str):  # An array of strings is a dataset of one column.
            return record
        return _value(record, self.names[0], path, row)


class Template:
    """Columns in a text. A null column is an empty one; a row of which all columns are empty is no document."""

    def __init__(self, template):
        self.template = template
        #: Literals and, as lists of one, columns.
        self._parts = _parse(template)
        self.names = list(dict.fromkeys(part[0] for part in self._parts if isinstance(part, list)))
        if not self.names:
            raise _invalid(template, "names no column")

    def block(self, arrays):
        """A block of documents from the arrays of the named columns, and how many were not valid UTF-8."""
        import pyarrow
        import pyarrow.compute as compute

        large = pyarrow.large_string()
        columns = {}
        changed = 0
        blank = None
        for name, array in zip(self.names, arrays):
            array, changed_here = text_array(array)
            columns[name] = array.cast(large)
            changed += changed_here
            empty = compute.equal(compute.binary_length(columns[name]), 0)
            blank = empty if blank is None else compute.and_(blank, empty)
        nothing = pyarrow.scalar("", large)
        parts = [columns[part[0]] if isinstance(part, list) else pyarrow.scalar(part, large) for part in self._parts]
        joined = compute.binary_join_element_wise(*parts, nothing)
        return ArrowBlock(compute.if_else(blank, nothing, joined)), changed

    def of(self, record, path, row):
        """The document of a parsed JSON record."""
        if isinstance(record, str):
            record = {"text": record}
        values = {name: _value(record, name, path, row) or "" for name in self.names}
        if not any(values.values()):
            return None
        return "".join(values[part[0]] if isinstance(part, list) else part for part in self._parts)


def text_of(column, template):
    """What the arguments ask for."""
    return Column(column) if template is None else Template(template)


def no_template(dataset, path):
    """A template asks for columns, and a file has none."""
    return SourceFailure(
        "CONFIG_INVALID",
        f"a text template needs columns, and {path} of {dataset} has none: it is text",
        "leave out the text template, or read Parquet or JSON lines",
    )


def _invalid(template, what):
    return SourceFailure("CONFIG_INVALID", f"the text template {template!r} {what}", TEMPLATE_HINT)


def _parse(template):
    parts = [""]
    for literal, braces, column in re.findall(r"([^{}]+)|(\{\{|\}\})|(\{[^{}]*\}|[{}])", template):
        if column in ("{", "}"):
            raise _invalid(template, f"has a {column} without its pair")
        if column == "{}":
            raise _invalid(template, "has braces without a column")
        if column:
            parts += [[column[1:-1]], ""]
        else:
            parts[-1] += literal or braces[0]
    return [part for part in parts if part]
