"""All documents of a dataset in file order, as JSON lines on stdout: the protocol for programs that others write.

A position is {"file": index, "group": row group or turn, "row": row within it} and names the row that comes next; the
environment variable CANDLEWICK_POSITION says where to begin.
"""

import json
import os
import signal
import struct
import sys
import traceback

from .failure import SourceFailure, classify
from .hub import endpoint
from .look import look_into
from .readers import Readers
from .serve import Streamer, import_for
from .text import text_of

POSITION = "CANDLEWICK_POSITION"


class Speaker(Streamer):
    """The process: finds a source as the streamer does, and writes all of it."""

    supervised = False

    def __init__(self, options, started, stdout):
        super().__init__(options, started)
        self._out = os.fdopen(stdout, "wb", buffering=1 << 20)

    def say(self, line):
        """Writes a line and lets it go."""
        self._out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
        self._out.write(b"\n")
        self._out.flush()

    def loading(self, phase):
        """A phase of start-up."""
        self.say({"status": "loading"})

    def notice(self, text):
        """Something that people should know."""
        print(text, file=sys.stderr, flush=True)

    def run(self):
        """Writes everything; does not return."""
        # Nobody supervises this process: Ctrl+C and a reader that leaves end it as they end any other.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            self.write_all()
        except BaseException as error:
            failure = classify(error, self.options.dataset, endpoint())
            if not isinstance(error, SourceFailure):
                traceback.print_exception(error, file=sys.stderr)
            print(f"error: {failure.message}\nhint: {failure.hint}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def write_all(self):
        """Every document from the position on."""
        file, group, row = _start(os.environ.get(POSITION))
        text = text_of(self.options.text_column, self.options.text_template)
        self.source = self.find()
        import_for(self.source)
        look_into(self.source, text)
        readers = Readers(self.source, text, self.options.batch_size, self.notice)
        self.say({"status": "ready"})
        total = 0
        while file < len(self.source.files):
            groups = readers.row_groups(file)
            over = groups is not None and group >= len(groups)
            while not over:
                for frame, binary in readers.read(file, group, row, None):
                    texts = _texts(binary, frame["rows"])
                    total += sum(1 for document in texts if document)
                    row = frame["row"] + frame["rows"]
                    over = frame["eof"]
                    if frame["end"]:
                        group, row = group + 1, 0
                    self.say({"batch": texts, "position": {"file": file, "group": group, "row": row}})
                over = over or (groups is not None and group >= len(groups))
            file, group, row = file + 1, 0, 0
        self.say({"done": True, "total": total})


def _start(position):
    """(file, group, row) to begin with."""
    if position is None:
        return 0, 0, 0
    try:
        place = json.loads(position)
        start = place["file"], place["group"], place["row"]
    except (ValueError, TypeError, KeyError):
        start = ()
    if not start or not all(isinstance(number, int) and number >= 0 for number in start):
        raise SourceFailure(
            "PROTOCOL_VIOLATION",
            f"{POSITION} is {position!r}",
            'it looks like {"file": 0, "group": 0, "row": 0}; unset it to begin at the beginning',
        )
    return start


def _texts(binary, rows):
    """The documents of a frame's binary part."""
    data = b"".join(binary)
    offsets = struct.unpack_from(f"<{rows + 1}i", data)
    texts = memoryview(data)[4 * (rows + 1) :]
    return [str(texts[start:end], "utf-8") for start, end in zip(offsets, offsets[1:])]
