"""Rows of text as offsets and bytes.

A block has `rows` and gives any range of them as the binary part of a frame: n+1 int32 offsets, the first of them 0,
then the UTF-8 bytes. A null is a row of no bytes.
"""

import struct

from .failure import SourceFailure

FRAME_BYTES = 32 << 20
OFFSET_LIMIT = (1 << 31) - 1


def _too_long(size):
    return SourceFailure(
        "SOURCE_CORRUPT",
        f"a document of {size} bytes is too long",
        "documents are at most 2 GiB; split the file into documents, for instance as JSON lines",
    )


class BytesBlock:
    """A block of a few documents that are `bytes` already."""

    def __init__(self, documents):
        self.documents = documents
        self.rows = len(documents)

    def cut(self, start, most):
        """The end of the largest range from `start` that fits a frame: at most `most` rows and 32 MiB, at least a row."""
        size = 0
        end = start
        while end < self.rows and end - start < most:
            size += len(self.documents[end])
            if size > FRAME_BYTES and end > start:
                break
            end += 1
        return end

    def pieces(self, start, end):
        """The binary part for rows `start` to `end`."""
        offsets = [0]
        for document in self.documents[start:end]:
            offsets.append(offsets[-1] + len(document))
        if offsets[-1] > OFFSET_LIMIT:
            raise _too_long(offsets[-1])
        return [struct.pack(f"<{len(offsets)}i", *offsets), *self.documents[start:end]]


class ArrowBlock:
    """A block over Arrow's own buffers; nothing is done per row."""

    def __init__(self, array):
        import numpy
        import pyarrow

        large = pyarrow.types.is_large_string(array.type)
        self.rows = len(array)
        _, offsets, data = array.buffers()
        if offsets is None or self.rows == 0:
            self._offsets = numpy.zeros(self.rows + 1, dtype="<i8")
        else:
            item = "<i8" if large else "<i4"
            width = 8 if large else 4
            self._offsets = numpy.frombuffer(offsets, dtype=item, count=self.rows + 1, offset=array.offset * width)
        self._data = memoryview(b"") if data is None else memoryview(data)
        # The views above do not keep the buffers alive where the array owned them through its parent.
        self._array = array

    def cut(self, start, most):
        """The end of the largest range from `start` that fits a frame: at most `most` rows and 32 MiB, at least a row."""
        end = min(self.rows, start + most)
        if self._offsets[end] - self._offsets[start] <= FRAME_BYTES:
            return end
        fits = int(self._offsets.searchsorted(self._offsets[start] + FRAME_BYTES, side="right")) - 1
        return max(start + 1, min(end, fits))

    def pieces(self, start, end):
        """The binary part for rows `start` to `end`."""
        first, last = int(self._offsets[start]), int(self._offsets[end])
        if last - first > OFFSET_LIMIT:
            raise _too_long(last - first)
        offsets = (self._offsets[start : end + 1] - first).astype("<i4").tobytes()
        return [offsets, bytes(self._data[first:last])]


def _replace_invalid(array):
    """Text with every byte that is not UTF-8 as U+FFFD, and how many documents that changed."""
    import pyarrow

    changed = 0
    documents = []
    binary = pyarrow.large_binary() if pyarrow.types.is_large_string(array.type) else pyarrow.binary()
    for value in array.view(binary).to_pylist():
        try:
            documents.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            changed += 1
            documents.append(value.decode("utf-8", "replace"))
    return pyarrow.array(documents, pyarrow.large_string()), changed


def is_text(kind):
    """Whether a column of this Arrow type can be read as text."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    checks = [
        types.is_string,
        types.is_large_string,
        types.is_binary,
        types.is_large_binary,
        types.is_fixed_size_binary,
    ]
    checks += [getattr(types, name) for name in ("is_string_view", "is_binary_view") if hasattr(types, name)]
    return any(check(kind) for check in checks)


def arrow_block(array):
    """A block over a column of any text-like type, and how many documents were not valid UTF-8."""
    array, changed = text_array(array)
    return ArrowBlock(array), changed


def text_array(array):
    """A column of any text-like type as valid UTF-8 without nulls, and how many values were not valid."""
    import pyarrow
    import pyarrow.compute as compute

    types = pyarrow.types
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_fixed_size_binary(array.type) or (
        hasattr(types, "is_binary_view") and types.is_binary_view(array.type)
    ):
        array = array.cast(pyarrow.large_binary())
    elif hasattr(types, "is_string_view") and types.is_string_view(array.type):
        array = array.cast(pyarrow.large_string())
    if types.is_binary(array.type):
        array = array.view(pyarrow.string())
    elif types.is_large_binary(array.type):
        array = array.view(pyarrow.large_string())
    if array.null_count:
        # The bytes under a null are anybody's guess; this also moves the others together.
        array = compute.fill_null(array, "")
    changed = 0
    try:
        array.validate(full=True)
    except pyarrow.ArrowInvalid:
        array, changed = _replace_invalid(array)
    return array, changed
