"""The wire format, version 1.

28 bytes of header, little endian, then JSON, then binary:
magic `CWK1` · version u8 · kind u8 · reserved u16 · sequence u32 · JSON length u32 · binary length u64 · CRC32C u32.
The checksum covers the first 24 bytes of the header, the JSON and the binary part.
"""

import json
import os
import select
import struct
import threading

MAGIC = b"CWK1"
VERSION = 1
HEADER = struct.Struct("<4sBBHIIQ")
CHECKSUM = struct.Struct("<I")

KINDS = {"loading": 1, "ready": 2, "file": 3, "batch": 4, "progress": 5, "heartbeat": 6, "error": 7, "done": 8}


def _python_crc32c():
    """CRC32C bit by bit; slow, and only there so that an error can be told when the package is missing."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)

    def extend(crc, data):
        crc ^= 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF

    return extend


try:
    from google_crc32c import extend as crc32c

    FAST_CHECKSUM = True
except ImportError:
    crc32c = _python_crc32c()
    FAST_CHECKSUM = False


class FrameWriter:
    """Writes frames to a descriptor; safe to call from any thread."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._sequence = 0
        self._lock = threading.Lock()

    def write(self, kind, message, binary=()):
        """Sends one frame; `binary` is a sequence of `bytes`. Returns when the pipe has taken all of it."""
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        size = sum(len(part) for part in binary)
        with self._lock:
            header = HEADER.pack(MAGIC, VERSION, KINDS[kind], 0, self._sequence, len(text), size)
            checksum = crc32c(crc32c(0, header), text)
            for part in binary:
                checksum = crc32c(checksum, part)
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            self._write_all([header, CHECKSUM.pack(checksum), text, *binary])

    def _write_all(self, parts):
        views = [memoryview(part) for part in parts if len(part)]
        while views:
            try:
                written = os.writev(self._descriptor, views)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
                continue
            except BrokenPipeError:
                os._exit(0)  # Nobody reads any more.
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]
