"""Parquet files, read by row group, the columns of the text only.

`datasets` can be asked for single row groups through its builder (`ex_iterable.generate_tables_fn`), but that opens
the file and parses its footer anew each time: 30 ms a group instead of 16 on a local file of 500 groups, and from the
hub the 2.4 MB of that footer once more for every group. So a file stays open here, on huggingface_hub's own file; a
row group then costs less than one request, and no private part of `datasets` is needed.
"""

from .block import is_text
from .failure import SourceFailure, chain, corrupt, is_damage
from .source import column_missing, column_not_text

DECODED_BYTES = 32 << 20


class ParquetGroups:
    """An open file."""

    def __init__(self, file, text):
        import pyarrow
        import pyarrow.parquet

        self.path = file.path
        self.text = text
        self._remote = not file.local
        if file.compression is not None:
            # Parquet needs to seek; a compressed stream cannot, so it is held in memory.
            handle = pyarrow.BufferReader(file.open().read())
        elif file.local:
            handle = pyarrow.OSFile(file.location, "rb")
        else:
            handle = file.open_raw()
        try:
            self._file = pyarrow.parquet.ParquetFile(
                handle, pre_buffer=not file.local, page_checksum_verification=True
            )
        except Exception as error:
            handle.close()
            raise self._damage(error, "its footer") from error
        self.columns = self._file.schema_arrow.names
        metadata = self._file.metadata
        self.rows = metadata.num_rows
        #: Rows of each group.
        self.row_groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def check_column(self, dataset):
        """Fails where a column of the text is missing or holds something else."""
        for name in self.text.names:
            if name not in self.columns:
                raise column_missing(dataset, name, self.columns)
            kind = self._file.schema_arrow.field(name).type
            if not is_text(kind):
                raise column_not_text(dataset, name, kind, self.columns)

    def _chunks(self, group):
        """What the text of a row group is stored in."""
        metadata = self._file.metadata.row_group(group)
        chunks = [metadata.column(index) for index in range(metadata.num_columns)]
        return [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in self.text.names]

    def _batch_rows(self, group):
        """How many rows to decode at a time, so that a group of any size takes little memory."""
        rows = self.row_groups[group]
        size = sum(chunk.total_uncompressed_size for chunk in self._chunks(group))
        return max(1, min(rows, DECODED_BYTES * rows // max(size, 1)))

    def _damage(self, error, place):
        """The error itself, or what it says of the data with the place where they are."""
        if not all(is_damage(link) for link in chain(error)):
            return error
        text = " ".join(str(error).split())[:300]
        return corrupt(f"{self.path}: {place} cannot be read: {text}", remote=self._remote)

    def _place(self, group):
        """Where the text of a row group is in the file."""
        starts, ends = [], []
        for chunk in self._chunks(group):
            offsets = [chunk.dictionary_page_offset, chunk.data_page_offset]
            start = min(offset for offset in offsets if offset)
            starts.append(start)
            ends.append(start + chunk.total_compressed_size)
        span = f", bytes {min(starts)} to {max(ends) - 1}" if starts else ""
        columns = ", ".join(self.text.names)
        return f"row group {group}{span} ({columns})"

    def row_count(self, group):
        """Rows of one group."""
        if not 0 <= group < len(self.row_groups):
            raise SourceFailure(
                "PROTOCOL_VIOLATION", f"{self.path} has no row group {group}", "this is a bug of candlewick"
            )
        return self.row_groups[group]

    def blocks(self, group, skip=0):
        """Blocks of a row group from row `skip` on, with the number of documents that were not valid UTF-8."""
        for name in self.text.names:
            if name not in self.columns:
                raise column_missing(self.path, name, self.columns)
        try:
            batches = self._file.iter_batches(
                batch_size=self._batch_rows(group), row_groups=[group], columns=self.text.names, use_threads=False
            )
            for batch in batches:
                if skip >= len(batch):
                    skip -= len(batch)
                    continue
                if skip:
                    batch = batch.slice(skip)
                    skip = 0
                yield self.text.block([batch.column(name) for name in self.text.names])
        except Exception as error:
            raise self._damage(error, self._place(group)) from error

    def all_blocks(self):
        """Blocks of the whole file in order."""
        for group in range(len(self.row_groups)):
            yield from self.blocks(group)

    def close(self):
        """Closes the file."""
        self._file.close(force=True)


def checked(file, text, dataset):
    """Opens a file to look at its schema: (columns, rows)."""
    groups = ParquetGroups(file, text)
    try:
        groups.check_column(dataset)
        return groups.columns, groups.rows
    finally:
        groups.close()
