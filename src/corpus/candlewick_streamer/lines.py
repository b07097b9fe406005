"""Files that are read from the front: JSON lines, JSON arrays, plain text."""

import json

from .block import BytesBlock
from .failure import SourceFailure, corrupt, is_damage
from .source import column_missing, column_not_text

CHUNK_BYTES = 4 << 20
BOM = b"\xef\xbb\xbf"
LOOK_AT_ROWS = 1000


def _utf8(text):
    """Bytes of a str that may hold lone surrogates (JSON can spell them), and whether it did."""
    try:
        return text.encode("utf-8"), 0
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8"), 1


def _bad_json(path, row, error):
    return SourceFailure(
        "SOURCE_CORRUPT",
        f"{path}: row {row} is not JSON: {error}",
        "each line must be one JSON object, or the file one JSON array",
    )


def place(file, stream):
    """About where in a file the reading is; what is read ahead is counted, too."""
    compressed = " of the compressed file" if file.compression else ""
    return f"at or before byte {stream.stored.offset}{compressed}"


def _located(blocks, file):
    """Blocks, or a failure that says where in the file the damage is."""
    stream = None
    row = 0
    try:
        with file.open() as stream:
            for block, changed in blocks(stream):
                yield block, changed
                row += block.rows
    except SourceFailure as failure:
        if failure.code != "SOURCE_CORRUPT" or stream is None:
            raise
        message = f"{failure.message} ({place(file, stream)})"
        raise corrupt(message, failure.hint, remote=not file.local) from failure
    except Exception as error:
        if not is_damage(error) or stream is None:
            raise
        text = " ".join(str(error).split())[:300] or type(error).__name__
        message = f"{file.path} cannot be read after row {row}, {place(file, stream)}: {text}"
        raise corrupt(message, remote=not file.local) from error


def _documents(records, text, path, row):
    """(block, documents that were not valid) of parsed records; the slow way."""
    documents = []
    changed = 0
    for record in records:
        document = text.of(record, path, row + len(documents))
        encoded, replaced = (b"", 0) if document is None else _utf8(document)
        documents.append(encoded)
        changed += replaced
    return BytesBlock(documents), changed


def _parse_line(line, path, row):
    try:
        return json.loads(line), 0
    except UnicodeDecodeError:
        return json.loads(line.decode("utf-8", "replace")), 1
    except json.JSONDecodeError as error:
        raise _bad_json(path, row, error) from None


def _parse_chunk(chunk, text, path, row):
    """Lines that Arrow would not take, one by one."""
    records = []
    invalid = 0
    for line in chunk.split(b"\n"):
        if line.strip():
            record, replaced = _parse_line(line, path, row + len(records))
            records.append(record)
            invalid += replaced
    block, changed = _documents(records, text, path, row)
    return block, changed + invalid


def json_blocks(file, text):
    """Blocks of a file of JSON lines, or of one JSON array."""
    return _located(lambda stream: _json_blocks(stream, file, text), file)


def _json_blocks(stream, file, text):
    import pyarrow
    import pyarrow.json

    parse = pyarrow.json.ParseOptions(
        explicit_schema=pyarrow.schema([(name, pyarrow.string()) for name in text.names]),
        unexpected_field_behavior="ignore",
    )
    row = 0
    if _is_array(stream):
        yield _documents(_whole_array(stream, file.path), text, file.path, 0)
        return
    while chunk := stream.read(CHUNK_BYTES):
        chunk += stream.readline()
        if not chunk.strip():
            continue
        if row == 0 and chunk.startswith(BOM):
            chunk = chunk[len(BOM) :]
        read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(chunk) + 1)
        try:
            table = pyarrow.json.read_json(pyarrow.BufferReader(chunk), read_options=read, parse_options=parse)
            block, changed = text.block([table.column(name).combine_chunks() for name in text.names])
        except (pyarrow.ArrowInvalid, OverflowError):
            # Lone surrogates, a value of another type, damage: the slow way tells which.
            block, changed = _parse_chunk(chunk, text, file.path, row)
        row += block.rows
        yield block, changed


def _is_array(stream):
    start = stream.peek(64)[:64].removeprefix(BOM).lstrip()
    return start.startswith(b"[")


def _whole_array(stream, path):
    try:
        return json.loads(stream.read().removeprefix(BOM).decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        raise _bad_json(path, 0, error) from None


def text_blocks(file):
    """The one document of a plain text file; a file of no bytes has none."""
    return _located(_text_blocks, file)


def _text_blocks(stream):
    document = stream.read().removeprefix(BOM)
    changed = 0
    try:
        document.decode("utf-8")
    except UnicodeDecodeError:
        document = document.decode("utf-8", "replace").encode("utf-8")
        changed = 1
    if document:
        yield BytesBlock([document]), changed


def _look_at_json(file):
    """The first records of a file."""
    with file.open() as stream:
        if _is_array(stream):
            return _whole_array(stream, file.path)[:LOOK_AT_ROWS]
        records = []
        while len(records) < LOOK_AT_ROWS and (line := stream.readline()):
            line = line.removeprefix(BOM)
            if line.strip():
                records.append(_parse_line(line, file.path, len(records))[0])
        return records


def checked(file, text, dataset):
    """Looks into a file: (columns, rows seen)."""
    if file.format == "text":
        if text.names != ["text"]:
            raise column_missing(dataset, text.names[0], ["text"])
        with file.open() as stream:
            return ["text"], 1 if stream.read(1) else 0
    records = _look_at_json(file)
    columns = {}
    for record in records:
        fields = record if isinstance(record, dict) else {"text": record}
        for name, value in fields.items():
            if columns.get(name) is None:
                columns[name] = value
    for name in text.names if records else ():
        if name not in columns:
            raise column_missing(dataset, name, list(columns))
        value = columns[name]
        if value is not None and not isinstance(value, str):
            raise column_not_text(dataset, name, type(value).__name__, list(columns))
    return list(columns), len(records)
