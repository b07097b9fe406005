"""Files of the hub as streams, read by ranges through huggingface_hub's file system.

Retries are the parent's business: it has a budget, and tells people what is waited for. So the libraries' own, which
wait silently for minutes and give up where we would not, are turned off here. Whatever of this a version of the
libraries does not have is left as it is: the stream is the same, a fault only comes later.
"""

import io
import os
import threading

#: Seconds without a byte after which a request has failed.
STALL_SECONDS = 10


class WrongLength(ConnectionError):
    """An answer that does not have the bytes that were asked for."""


class Meter:
    """Counts the bytes that have been read, so that slow work can be told from none."""

    def __init__(self):
        self._lock = threading.Lock()
        self.bytes = 0

    def add(self, count):
        """Counts `count` bytes."""
        with self._lock:
            self.bytes += count


METER = Meter()


def set_timeouts():
    """Makes a stall surface; to be called before the libraries are imported."""
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(STALL_SECONDS))
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(STALL_SECONDS))


def stop_library_retries():
    """Turns down the libraries' own retries; to be called after they are imported."""
    _stop_backoff()
    _limit_requests()
    from datasets import config

    for name in ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES"):
        if hasattr(config, name):
            setattr(config, name, 1)
    for name in [name for name in vars(config) if name.startswith("STREAMING_") and name.endswith("_RETRY_INTERVAL")]:
        setattr(config, name, 0)


def _stop_backoff():
    """Every module of huggingface_hub has this function under its own name, so the function itself is changed."""
    try:
        from huggingface_hub.utils import _http
    except ImportError:
        return
    for name in ("http_backoff", "http_stream_backoff"):
        function = getattr(_http, name, None)
        defaults = getattr(getattr(function, "__wrapped__", function), "__kwdefaults__", None)
        if defaults and "max_retries" in defaults:
            defaults["max_retries"] = 0


def _limit_requests():
    """Listings are asked for without any timeout."""
    try:
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils._http import default_client_factory
    except ImportError:
        return _limit_sessions()
    seconds = float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])

    def limit(request):
        timeouts = request.extensions.get("timeout") or {}
        limits = {name: timeouts.get(name) or seconds for name in ("connect", "read", "write", "pool")}
        request.extensions = {**request.extensions, "timeout": limits}

    def limited():
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    set_client_factory(limited)
    return None


def _limit_sessions():
    """The same for huggingface_hub before 1.0, which is built upon requests."""
    try:
        import requests
        from huggingface_hub import configure_http_backend
    except ImportError:
        return
    seconds = float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])

    class Limited(requests.Session):
        """A session whose requests have a timeout."""

        def request(self, *args, timeout=None, **kwargs):
            """As in requests."""
            return super().request(*args, timeout=timeout or seconds, **kwargs)

    configure_http_backend(backend_factory=Limited)


def hub_files(endpoint):
    """Opens files by their `hf://` locations."""
    from huggingface_hub import HfFileSystem

    # The arguments that `datasets` uses, so that its listing is found in the cache.
    shared = HfFileSystem(endpoint=endpoint, token=None)

    def opener(location):
        path = location.removeprefix("hf://")
        return lambda: _checked(shared.open(path, "rb"))

    return opener


def _checked(file):
    """Holds every answer to the range that was asked for, whatever the hub made of it."""
    fetch = file.cache.fetcher

    def fetch_range(start, end):
        data = fetch(start, end)
        METER.add(len(data))
        if len(data) > end - start:
            raise WrongLength(f"the range of {end - start} bytes at {start} was ignored: {len(data)} bytes came")
        if len(data) < end - start:
            raise WrongLength(f"the answer was cut short: {len(data)} of {end - start} bytes at {start} came")
        return data

    file.cache.fetcher = fetch_range
    return file


class Counted(io.RawIOBase):
    """A raw file that is read in parts and knows how far it has been read, whatever reads it."""

    def __init__(self, raw):
        super().__init__()
        self._raw = raw
        #: Bytes read so far.
        self.offset = 0

    def readable(self):
        """True."""
        return True

    def readinto(self, buffer):
        """As in io."""
        count = self._raw.readinto(buffer)
        self.offset += count or 0
        METER.add(count or 0)
        return count

    def close(self):
        """Closes the file below, too."""
        if not self.closed:
            self._raw.close()
        super().close()
