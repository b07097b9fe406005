"""What a dataset is to the rest: files, their formats, and what `ready` says."""

import io
import os
from dataclasses import dataclass, field
from importlib import metadata
from collections.abc import Callable

from .failure import SourceFailure, package_missing

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json", ".txt": "text"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
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
        """A binary file over the decompressed content, read from the front."""
        raw = self.open_raw()
        if self.compression == "gzip":
            import gzip

            return io.BufferedReader(gzip.GzipFile(fileobj=io.BufferedReader(raw, 1 << 20)), 1 << 20)
        if self.compression == "zstd":
            try:
                import zstandard
            except ImportError:
                raise package_missing("zstandard") from None
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_size=1 << 20, read_across_frames=True)
            return io.BufferedReader(reader, 1 << 20)
        return io.BufferedReader(raw, 1 << 20)


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
