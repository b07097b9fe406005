"""Arguments, requests on stdin, worker threads, and the frames they end in."""

import argparse
import json
import os
import queue
import sys
import threading
import time
import traceback

from . import sample
from .failure import SourceFailure, classify, package_missing
from .frames import FAST_CHECKSUM, FrameWriter
from .hub import check_reachable, endpoint, find_in_layout, find_on_hub
from .local import find_directory, find_file, has_configs, looks_like_path, missing
from .look import look_into
from .readers import Readers
from .remote import METER, set_timeouts, stop_library_retries
from .source import versions
from .text import text_of

DATA = 3
#: Requests decoded at a time: a remote file answers after a delay, a local one needs a processor.
REMOTE_WORKERS = 4
LOCAL_WORKERS = 2
#: Frames of a request that may wait to be written.
WAITING_FRAMES = 2


def parse_arguments(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(prog="streamer.py", description="Streams a dataset as frames on descriptor 3.")
    parser.add_argument("--dataset", required=True, help="hub name, local path, or `sample`")
    parser.add_argument("--config-name")
    parser.add_argument("--split", default="train")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-template", help="columns in a text, such as '{title}\\n\\n{text}'")
    parser.add_argument("--revision")
    parser.add_argument("--batch-size", type=int, default=1000, help="documents a frame, at most")
    parser.add_argument(
        "--protocol",
        choices=["frames", "json"],
        default="frames",
        help="frames on descriptor 3, on request; or all documents as JSON lines on stdout",
    )
    parser.add_argument("--heartbeat", type=float, default=5.0, help="seconds between heartbeats")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if options.heartbeat <= 0:
        parser.error("--heartbeat must be above 0")
    return options


class Request:
    """One read or file request. Those on the same file wait for each other, all others are worked on at once."""

    def __init__(self, message, before):
        self.message = message
        self.before = before
        self.done = threading.Event()
        self.answers = queue.Queue(maxsize=WAITING_FRAMES)

    def sent(self, rows):
        """That many rows have been written: what is left of the request begins behind them."""
        if self.message.get("op") == "read" and rows:
            row, left = self.message.get("row", 0), self.message.get("rows")
            rest = None if left is None else left - rows
            self.message = {**self.message, "row": row + rows, "rows": rest}


class Failed:
    """A request that failed, and when."""

    def __init__(self, error):
        self.error = error
        self.time = time.monotonic()


class Streamer:
    """The process: threads for heartbeats, stdin and decoding; the main thread writes answers in order."""

    #: Whether somebody decides about failures, and tells this process to try again.
    supervised = True

    def __init__(self, options, started):
        self.options = options
        self.started = started
        self.writer = FrameWriter(DATA)
        self.ordered = queue.Queue()
        self.waiting = queue.Queue()
        self.latest_on_file = {}
        self.retries = queue.Queue()
        self.retried = self.started
        self.rows_sent = 0
        #: Requests that have come, and that have been answered.
        self.accepted = 0
        self.answered = 0

    def start_thread(self, work):
        """Runs `work` beside the main thread."""
        threading.Thread(target=work, daemon=True).start()

    def loading(self, phase):
        """Says what is being done now."""
        self.writer.write("loading", {"phase": phase, "seconds": round(time.monotonic() - self.started, 3)})

    def beat(self):
        """Heartbeats, whatever else is going on."""
        while True:
            time.sleep(self.options.heartbeat)
            waiting = self.accepted - self.answered
            self.writer.write("heartbeat", {"time": time.time(), "waiting": waiting, "fetched": METER.bytes})

    def listen(self):
        """Takes requests from stdin; its end ends the process."""
        for line in sys.stdin.buffer:
            if line.strip():
                self.accept(line)
        os._exit(0)

    def accept(self, line):
        """Queues a request, behind the one before it on the same file."""
        try:
            message = json.loads(line)
            file = message.get("file")
        except (ValueError, AttributeError):
            message, file = {"op": "not JSON"}, None
        if message.get("op") == "retry":
            self.retries.put(message.get("id"))
            return
        self.accepted += 1
        request = Request(message, self.latest_on_file.get(file))
        if file is not None:
            self.latest_on_file[file] = request
        self.ordered.put(request)
        if message.get("op") != "close":
            self.waiting.put(request)

    def find(self):
        """The source that the arguments name."""
        options = self.options
        dataset = options.dataset
        if dataset == "sample":
            self.loading("files")
            return sample.find(options.split, options.text_column)
        path = os.path.expanduser(dataset)
        if os.path.isfile(path):
            self.loading("files")
            return find_file(path, dataset, options.split)
        is_directory = os.path.isdir(path)
        name = dataset.removeprefix("hf://datasets/")
        if not is_directory and looks_like_path(name):
            raise missing(dataset)
        if not is_directory:
            check_reachable(name)
        self.loading("imports")
        import_libraries()
        if self.supervised:
            stop_library_retries()
        self.loading("dataset")
        if not is_directory:
            return find_on_hub(name, options.config_name, options.split, options.revision)
        if has_configs(path):
            return find_in_layout(path, dataset, options.split, options.config_name)
        return find_directory(path, dataset, options.split, options.config_name)

    def ready(self, source):
        """Announces the source."""
        self.writer.write(
            "ready",
            {
                "dataset": source.dataset,
                "config_name": source.config_name,
                "split": source.split,
                "revision": source.revision,
                "text_column": self.options.text_column,
                "text_template": self.options.text_template,
                "columns": source.columns,
                "files": [file.path for file in source.files],
                "row_groups": source.row_groups,
                "total_rows": source.total_rows,
                "versions": versions(),
            },
        )

    def notice(self, text):
        """Something that people should know."""
        self.writer.write("progress", {"message": text})

    def work(self):
        """Decodes requests ahead of the writing."""
        while True:
            request = self.waiting.get()
            if request.before is not None:
                request.before.done.wait()
                request.before = None
            try:
                for answer in self.answer(request.message):
                    request.answers.put(answer)
            except BaseException as error:
                # Those behind it on the same file wait until it has been tried again.
                request.answers.put(Failed(error))
                continue
            request.answers.put(None)
            request.done.set()

    def answer(self, message):
        """Frames that answer a request."""
        identity = {"id": message.get("id"), "file": message.get("file")}
        if message.get("op") == "file":
            yield "file", {**identity, "row_groups": self.readers.row_groups(message["file"])}, ()
        elif message.get("op") == "read":
            group = message["group"]
            answers = self.readers.read(message["file"], group, message.get("row", 0), message.get("rows"))
            for frame, binary in answers:
                yield "batch", {**identity, "group": group, **frame}, binary
        else:
            raise SourceFailure(
                "PROTOCOL_VIOLATION", f"unknown request {message.get('op')!r}", "this is a bug of candlewick"
            )

    def write_answers(self):
        """Writes what the workers decode, in the order of the requests."""
        while True:
            request = self.ordered.get()
            if request.message.get("op") == "close":
                self.writer.write("done", {"total": self.rows_sent})
                os._exit(0)
            failed = self.pass_on(request, iter(request.answers.get, None))
            while failed is not None:
                # What failed before the last retry did so for the reason that is over.
                if failed.time >= self.retried:
                    self.report(failed.error, self.where(request), request.message.get("id"))
                failed = self.pass_on(request, self.again(request))
            request.done.set()
            self.answered += 1

    def pass_on(self, request, answers):
        """Writes answers; returns the failure that ended them, or None."""
        for answer in answers:
            if isinstance(answer, Failed):
                return answer
            kind, message, binary = answer
            self.writer.write(kind, message, binary)
            rows = message.get("rows", 0)
            self.rows_sent += rows
            request.sent(rows)
        return None

    def again(self, request):
        """Answers of a request that failed, from the first row that was not written."""
        try:
            yield from self.answer(request.message)
        except BaseException as error:
            yield Failed(error)

    def where(self, request):
        """What to call the file of a request."""
        file = request.message.get("file")
        name = self.readers.name(file) if isinstance(file, int) and 0 <= file < len(self.source.files) else None
        return self.options.dataset if name is None else f"{self.options.dataset}: {name}"

    def report(self, error, where, request):
        """Tells what went wrong. Returns when it is to be tried again, or ends the process."""
        failure = classify(error, where, endpoint(), reading=True)
        if not failure.retryable or failure.code == "STREAMER_CRASHED":
            self.fail(error, failure, request)
        self.complain(failure, request, waits=True)
        while self.retries.get() != request:
            pass
        self.retried = time.monotonic()

    def complain(self, failure, request, waits):
        """Writes an error frame; `waits`: the process goes on when it is told to try again."""
        self.writer.write(
            "error",
            {
                "code": failure.code,
                "message": failure.message,
                "hint": failure.hint,
                "cause": failure.cause,
                "retryable": failure.retryable,
                "retry_after": failure.retry_after,
                "attempts": failure.attempts,
                "waits": waits,
                "class": failure.python_class,
                "id": request,
            },
        )

    def fail(self, error, failure, request=None):
        """Tells what went wrong, and ends the process."""
        if not isinstance(error, SourceFailure):
            traceback.print_exception(error, file=sys.stderr)
        self.complain(failure, request, waits=False)
        sys.stderr.flush()
        os._exit(1)

    def run(self):
        """Serves until stdin ends."""
        self.start_thread(self.listen)
        self.start_thread(self.beat)
        try:
            if not FAST_CHECKSUM:
                raise package_missing("google_crc32c")
            self.source = self.find()
            import_for(self.source)
            text = text_of(self.options.text_column, self.options.text_template)
            look_into(self.source, text)
            self.readers = Readers(self.source, text, self.options.batch_size, self.notice)
            self.ready(self.source)
        except BaseException as error:
            self.fail(error, classify(error, self.options.dataset, endpoint()))
        remote = any(not file.local for file in self.source.files)
        for _ in range(REMOTE_WORKERS if remote else LOCAL_WORKERS):
            self.start_thread(self.work)
        self.write_answers()


def import_libraries():
    """Loads what finds datasets; a second or two."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    set_timeouts()
    for name in ("pyarrow", "huggingface_hub", "datasets"):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise package_missing(error.name or name) from error


def import_for(source):
    """Loads what reads the formats of a source, before threads need it."""
    if any(file.format in ("parquet", "json") for file in source.files):
        for name in ("numpy", "pyarrow", "pyarrow.compute", "pyarrow.parquet", "pyarrow.json"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                raise package_missing(error.name or name) from error


def main(options, started):
    """Runs the streamer; does not return."""
    try:
        os.fstat(DATA)
    except OSError:
        print("streamer.py writes frames to descriptor 3, which is not open; try `3>frames`", file=sys.stderr)
        os._exit(2)
    Streamer(options, started).run()
