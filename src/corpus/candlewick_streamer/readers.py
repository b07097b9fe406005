"""Open files, and the answers to what is asked of them."""

import threading
from collections import OrderedDict

from .failure import SourceFailure, corrupt
from .lines import json_blocks, text_blocks
from .parquet import ParquetGroups

TURN_ROWS = 1000
OPEN_FILES = 8


class TurnReader:
    """A file without row groups, read from the front in turns of 1,000 rows."""

    def __init__(self, blocks):
        self._blocks = blocks
        self._block = None
        self._index = 0
        #: Number of the next row.
        self.position = 0
        self.changed = 0

    def has_more(self):
        """Whether there is a next row; looks for it if need be."""
        while self._block is None or self._index >= self._block.rows:
            entry = next(self._blocks, None)
            if entry is None:
                return False
            self._block, changed = entry
            self._index = 0
            self.changed += changed
        return True

    def skip_to(self, row):
        """Leaves out everything before `row`."""
        while self.position < row and self.has_more():
            step = min(self._block.rows - self._index, row - self.position)
            self._index += step
            self.position += step

    def take(self, most):
        """(rows, binary) of the next frame: at most `most` rows."""
        start = self._index
        end = self._block.cut(start, most)
        binary = self._block.pieces(start, end)
        self._index = end
        self.position += end - start
        return end - start, binary

    def close(self):
        """Lets go of the file."""
        self._blocks.close()
        self._block = None


class Readers:
    """The files of a source that are open, the least recently used closed first."""

    def __init__(self, source, text, batch_size, notice):
        self._source = source
        self._text = text
        self._batch_size = batch_size
        self._notice = notice
        self._open = OrderedDict()
        self._noticed = set()
        self._lock = threading.Lock()

    def _file(self, number):
        files = self._source.files
        if not isinstance(number, int) or not 0 <= number < len(files):
            raise SourceFailure("PROTOCOL_VIOLATION", f"there is no file {number}", "this is a bug of candlewick")
        return files[number]

    def name(self, number):
        """What to call a file in a message."""
        return self._file(number).path

    def _blocks(self, file):
        if self._source.reader is not None:
            return self._source.reader(file)
        if file.format == "parquet":
            return ParquetGroups(file, self._text).all_blocks()
        return json_blocks(file, self._text) if file.format == "json" else text_blocks(file)

    def _borrow(self, number, usable):
        """Takes an open reader out of the cache, or None. A file is only ever in one worker's hands."""
        with self._lock:
            reader = self._open.pop(number, None)
        if reader is not None and not usable(reader):
            reader.close()
            reader = None
        return reader

    def _give_back(self, number, reader):
        with self._lock:
            if (other := self._open.pop(number, None)) is not None:
                other.close()
            self._open[number] = reader
            surplus = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - OPEN_FILES)]
        for old in surplus:
            old.close()

    def _groups(self, number):
        return self._borrow(number, lambda reader: True) or ParquetGroups(self._file(number), self._text)

    def row_groups(self, number):
        """Rows of each group of a file, or None where it is not read by group."""
        self._file(number)
        if not self._source.row_groups:
            return None
        groups = self._groups(number)
        self._give_back(number, groups)
        return groups.row_groups

    def read(self, number, group, row, rows):
        """Answers of one read: (fields of the frame, binary), the last of them closing the group or the turn."""
        self._file(number)
        if self._source.row_groups:
            reader = self._groups(number)
            answers = self._read_group(reader, number, group, row, rows)
        else:
            first = group * TURN_ROWS + row
            reader = self._borrow(number, lambda reader: reader.position <= first)
            if reader is None:
                reader = TurnReader(self._blocks(self._file(number)))
            answers = self._read_turn(reader, first, row, rows)
        try:
            changed = yield from answers
        except BaseException:
            # What it holds may be damaged: the next attempt reads anew.
            reader.close()
            raise
        self._give_back(number, reader)
        self._tell_changed(number, changed)

    def _read_group(self, reader, number, group, row, rows):
        total = reader.row_count(group)
        stop = total if rows is None else min(total, row + rows)
        at = row
        changed = 0
        for block, changed_now in reader.blocks(group, skip=row) if at < stop else ():
            changed += changed_now
            start = 0
            while start < block.rows and at < stop:
                end = block.cut(start, min(self._batch_size, stop - at))
                count = end - start
                yield {"row": at, "rows": count, "end": at + count >= total, "eof": False}, block.pieces(start, end)
                start = end
                at += count
            if at >= stop:
                break
        if at == row:
            yield {"row": row, "rows": 0, "end": at >= total, "eof": False}, [bytes(4)]
        elif at < stop:
            raise corrupt(
                f"{reader.path}: row group {group} has {at} rows, its footer says {total}",
                "the file is damaged",
                remote=not self._file(number).local,
            )
        return changed

    def _read_turn(self, reader, first, row, rows):
        reader.skip_to(first)
        left = TURN_ROWS - row if rows is None else min(TURN_ROWS - row, rows)
        at = row
        more = reader.position == first and reader.has_more()
        if not more or left <= 0:
            yield {"row": row, "rows": 0, "end": not more or row >= TURN_ROWS, "eof": not more}, [bytes(4)]
        while more and left > 0:
            count, binary = reader.take(min(self._batch_size, left))
            more = reader.has_more()
            left -= count
            at += count
            frame = {"row": at - count, "rows": count, "end": at >= TURN_ROWS or not more, "eof": not more}
            yield frame, binary
        return reader.changed

    def _tell_changed(self, number, changed):
        if changed and number not in self._noticed:
            self._noticed.add(number)
            self._notice(
                f"{self.name(number)}: {changed} document{'s were' if changed > 1 else ' was'} not valid UTF-8; "
                "what could not be read became U+FFFD"
            )
