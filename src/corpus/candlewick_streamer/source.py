"""What a dataset is to the rest: files, their formats, and what `ready` says."""

import io
import os
from dataclasses import dataclass, field
from importlib import metadata
from collections.abc import Callable

from .failure import SourceFailure, package_missing
from .remote import Counted

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json", ".txt": "text"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
#: Compressed bytes decompressed at a time.
ZSTD_BYTES = 128 << 10
READABLE = ".parquet, .jsonl, .json and .txt, each also .gz or .zst"


def format_of(path):
    """(format, compression or None) by the name's extensions; (None, …) for a file that cannot be read."""
    stem, extension = os.path.splitext(path.lower())
    compression = COMPRESSIONS.get(extension)
    if compression is not None:
        extension = os.path.splitext(stem)[1]
    return FORMATS.get(extension), compression


@dataclass
class DataFile:
    """One file of the split. `path` is its name in the dataset; `location` is where to open it."""

    path: str
    location: str
    format: str
    compression: str | None
    local: bool
    open_raw: Callable = field(repr=False)

    def open(self):
        """The decompressed content, read from the front."""
        raw = Counted(self.open_raw())
        return Content(self._decompressed(raw), raw)

    def _decompressed(self, raw):
        if self.compression == "gzip":
            import gzip

            return gzip.GzipFile(fileobj=io.BufferedReader(raw, 1 << 20))
        if self.compression == "zstd":
            try:
                import zstandard
            except ImportError:
                raise package_missing("zstandard") from None
            return _ZstdContent(zstandard, raw)
        return raw


class _ZstdContent(io.RawIOBase):
    """Zstandard frames, decompressed. The package's own reader takes a file that is cut short for a whole one."""

    def __init__(self, zstandard, raw):
        super().__init__()
        self._decompressor = zstandard.ZstdDecompressor()
        self._raw = raw
        self._frame = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self):
        """True."""
        return True

    def readinto(self, buffer):
        """As in io; EOFError in the middle of a frame."""
        while not self._output:
            if not self._input:
                self._input = self._raw.read(ZSTD_BYTES)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("the compressed data end in the middle of a frame")
                    return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def close(self):
        """Closes the file below, too."""
        self._raw.close()
        super().close()


class Content(io.BufferedReader):
    """What is in a file, decompressed. `raw` is what is read, `stored` counts the bytes of the file itself."""

    def __init__(self, raw, stored):
        super().__init__(raw, 1 << 20)
        self.stored = stored


def open_local(path):
    """An opener for a file of this machine."""
    return lambda: open(path, "rb", buffering=0)


@dataclass
class Source:
    """A dataset that has been found."""

    dataset: str
    config_name: str | None
    split: str
    revision: str | None
    files: list
    #: Rows of the split where something cheap and trustworthy says so.
    total_rows: int | None = None
    columns: list = field(default_factory=list)
    #: Overrides how files are opened and read; None: by the file's format.
    reader: Callable | None = None

    @property
    def row_groups(self):
        """Whether every file can be read by row group."""
        return bool(self.files) and self.reader is None and all(file.format == "parquet" for file in self.files)


def versions():
    """Versions of what reads the data, for the run's records."""
    import platform

    found = {"python": platform.python_version()}
    for name in ("datasets", "pyarrow", "huggingface_hub"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def split_missing(dataset, split, splits):
    """The dataset has no such split."""
    names = ", ".join(sorted(splits)) or "none"
    return SourceFailure(
        "SPLIT_NOT_FOUND", f"{dataset} has no split {split!r}; it has: {names}", "choose one of them with --split"
    )


def column_missing(dataset, column, columns):
    """The dataset has no such column."""
    return SourceFailure(
        "COLUMN_NOT_FOUND",
        f"{dataset} has no column {column!r}; it has: {', '.join(columns) or 'none'}",
        "choose one of them with --text-column",
    )


def column_not_text(dataset, column, kind, columns):
    """The column is there and holds something else."""
    return SourceFailure(
        "COLUMN_NOT_FOUND",
        f"column {column!r} of {dataset} holds {kind}, not text; columns: {', '.join(columns)}",
        "choose a column of text with --text-column",
    )


def unreadable(dataset, paths):
    """There are files, and none of a format that can be read."""
    extensions = sorted({os.path.splitext(path)[1] or os.path.basename(path) for path in paths})[:10]
    return SourceFailure(
        "DATASET_EMPTY",
        f"{dataset} has no files that can be read; its data files are {', '.join(extensions) or 'none'}",
        f"what can be read: {READABLE}",
    )
