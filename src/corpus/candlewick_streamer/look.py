"""A first look into a source: is the text column there, is there a row at all, how many rows are there."""

from . import lines, parquet
from .failure import SourceFailure, classify
from .hub import endpoint
from .text import no_template

#: Files of a remote dataset that are opened in search of a first row; a look must stay cheap.
REMOTE_FILES = 8
#: Footers of this many local Parquet files are read to know the number of rows.
COUNTED_FILES = 64


def _checked(file, text, dataset):
    module = parquet if file.format == "parquet" else lines
    try:
        return module.checked(file, text, dataset)
    except Exception as error:
        failure = classify(error, f"{dataset}: {file.path}", endpoint(), reading=True)
        if failure is error or failure.code == "STREAMER_CRASHED":
            raise
        raise failure from error


def _empty(source):
    return SourceFailure(
        "DATASET_EMPTY",
        f"split {source.split!r} of {source.dataset} has no rows",
        "name another dataset, config (--config-name) or split (--split)",
    )


def look_into(source, text):
    """Fills in `columns` and, where cheap, `total_rows`; fails for a missing column and for a source without rows."""
    if text.template is not None:
        for file in source.files:
            if file.format not in ("parquet", "json"):
                raise no_template(source.dataset, file.path)
    if source.reader is not None:
        return
    local = all(file.local for file in source.files)
    count_all = local and source.row_groups and len(source.files) <= COUNTED_FILES
    seen = 0
    looked_at = source.files if local else source.files[:REMOTE_FILES]
    for file in looked_at:
        columns, rows = _checked(file, text, source.dataset)
        source.columns = source.columns or columns
        seen += rows
        if seen and not count_all:
            break
    if seen == 0 and len(looked_at) == len(source.files):
        raise _empty(source)
    if count_all:
        source.total_rows = seen
