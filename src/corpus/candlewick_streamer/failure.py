"""What can go wrong, as the codes that the parent knows."""

import json
import os
import re
import socket
import sys
import time
import zlib
from email.utils import parsedate_to_datetime

SETUP_HINT = (
    "run `npx candlewick setup` to make an environment with everything that is needed, or install it yourself: "
    "{python} -m pip install {packages}"
)
OFFLINE_HINT = (
    "check the network and HF_ENDPOINT (now {endpoint}); `--dataset sample` and local paths work without a network"
)
TOKEN_HINT = (
    "set HF_TOKEN to a token that may read this dataset (https://huggingface.co/settings/tokens), and where it is "
    "gated accept its conditions on its page"
)


#: How often in a row a file that is gone, or damaged, is asked for again.
GONE_ATTEMPTS = 6
CORRUPT_ATTEMPTS = 3
#: How often in a row anything else is asked for again that should not fail at all.
ODD_ATTEMPTS = 3


class SourceFailure(Exception):
    """A failure that the user is told about.

    `retryable`: asking again may help, `attempts` times in a row at most (None: as long as the parent's budget lasts),
    and not before `retry_after` seconds. `cause` is the message in a few words.
    """

    def __init__(self, code, message, hint, retryable=False, *, cause=None, attempts=None, retry_after=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.cause = cause or message
        self.attempts = attempts
        self.retry_after = retry_after
        self.python_class = type(self).__name__


def package_missing(name):
    """`name` cannot be imported by this Python."""
    failure = SourceFailure(
        "PYTHON_PACKAGE_MISSING",
        f"the Python package {name} is not installed for {sys.executable}",
        SETUP_HINT.format(python=sys.executable, packages="datasets pyarrow huggingface_hub google-crc32c zstandard"),
    )
    failure.python_class = "ModuleNotFoundError"
    return failure


def unreachable(what, endpoint, error):
    """The hub cannot be reached."""
    return SourceFailure(
        "SOURCE_UNAVAILABLE",
        f"{what} cannot be reached: {' '.join(str(error).split())[:500] or type(error).__name__}",
        OFFLINE_HINT.format(endpoint=endpoint),
        True,
        cause=_network_cause(error),
    )


def corrupt(message, hint="the file is damaged or not what its name says", remote=False):
    """Data that cannot be what was written. What came over a network may have been damaged on its way."""
    attempts = CORRUPT_ATTEMPTS if remote else None
    return SourceFailure("SOURCE_CORRUPT", message, hint, remote, cause="damaged data", attempts=attempts)


def chain(error):
    """The error and all that led to it, latest first."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return seen


def _status(error):
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _names(error):
    """Class names of an error, so that no library needs to be imported to recognise its exceptions."""
    return {cls.__name__ for cls in type(error).__mro__}


def _root_module(error):
    return type(error).__module__.partition(".")[0]


def _network_cause(error):
    """A failure of the network in a few words."""
    names = set().union(*(_names(link) for link in chain(error)))
    text = " ".join(str(link) for link in chain(error)).lower()
    if "gaierror" in names or "name resolution" in text or "name or service" in text or "nodename" in text:
        return "the hub's address is not found"
    if "refused" in text:
        return "connection refused"
    if names & {"ConnectTimeout", "PoolTimeout"}:
        return "connecting timed out"
    if names & {"TimeoutException", "Timeout", "TimeoutError"} or "timed out" in text:
        return "read timed out"
    if "was ignored" in text:
        return "the hub ignores ranges"
    if "cut short" in text or names & {"RemoteProtocolError", "IncompleteRead", "ChunkedEncodingError"}:
        return "the answer was cut short"
    if "reset" in text or "NetworkError" in names or "disconnected" in text:
        return "connection lost"
    return " ".join(str(error).split())[:80] or type(error).__name__


def retry_after(headers, now=None):
    """Seconds that an answer of the hub asks to wait; None where it does not say."""
    values = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    asked = values.get("retry-after", "")
    waits = []
    if asked.isdigit():
        waits.append(float(asked))
    elif asked:
        try:
            waits.append(parsedate_to_datetime(asked).timestamp() - (time.time() if now is None else now))
        except (TypeError, ValueError):
            pass
    # "api";r=0;t=55: nothing remains, for 55 seconds.
    limit = re.search(r";\s*r=(\d+)\s*;\s*t=(\d+)", values.get("ratelimit", ""))
    if limit and int(limit[1]) == 0:
        waits.append(float(limit[2]))
    return max(0.0, *waits) if waits else None


def _token_in_words():
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "the token in HF_TOKEN may not read it"
    try:
        from huggingface_hub import get_token

        stored = get_token()
    except ImportError:
        stored = None
    return "the token of `hf auth login` may not read it" if stored else "no token was sent: HF_TOKEN is not set"


def _answered(error, status, where, endpoint, reading):
    """What a status of the hub means."""
    names = _names(error)
    text = " ".join(str(error).split())[:500]
    response = error.response
    # Links that the hub sends to expire; the hub itself gives a new one.
    stored = bool(getattr(response, "history", None))
    hub = "the hub's storage" if stored else "the hub"
    if status in (401, 403) and not stored and (reading or "GatedRepoError" in names):
        gated = f"{where} is gated" if "GatedRepoError" in names else f"{where}: the hub answered {status}"
        return SourceFailure("AUTH_REQUIRED", f"{gated}; {_token_in_words()} ({text})", TOKEN_HINT)
    if not reading and "RevisionNotFoundError" in names:
        return SourceFailure(
            "DATASET_NOT_FOUND",
            f"{where} has no such revision",
            "leave out --revision, or name a commit, tag or branch",
        )
    if not reading and "RepositoryNotFoundError" in names:
        return SourceFailure(
            "DATASET_NOT_FOUND",
            f"there is no dataset {where} on {endpoint}, or it is private",
            "check the spelling (owner/name); for a private dataset set HF_TOKEN; a local path must exist",
        )
    if status in (401, 403) and not stored:
        return SourceFailure(
            "AUTH_REQUIRED", f"{where}: the hub answered {status}; {_token_in_words()} ({text})", TOKEN_HINT
        )
    attempts = None
    if status in (404, 410):
        attempts = GONE_ATTEMPTS
    elif status < 500 and status not in (401, 403, 408, 425, 429):
        attempts = ODD_ATTEMPTS
    gone = " (gone)" if attempts == GONE_ATTEMPTS else ""
    return SourceFailure(
        "SOURCE_UNAVAILABLE",
        f"{where}: {hub} answered {status}{gone}",
        OFFLINE_HINT.format(endpoint=endpoint),
        True,
        cause=f"{status} from {hub}",
        attempts=attempts,
        retry_after=retry_after(response.headers),
    )


def _classify_one(error, where, endpoint, reading, to_the_cause):
    names = _names(error)
    status = _status(error)
    text = " ".join(str(error).split())[:500] or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return package_missing(error.name or text)
    if status is not None:
        return _answered(error, status, where, endpoint, reading)
    # Such an error only says that another one ended a library's patience.
    wraps = type(error) is ConnectionError or isinstance(error, FileNotFoundError) or "LocalEntryNotFoundError" in names
    if to_the_cause and wraps and error.__cause__ is not None:
        return None
    if names & {"EmptyDatasetError", "DataFilesNotFoundError"}:
        return SourceFailure("DATASET_EMPTY", f"{where} has no data files: {text}", "name a dataset that has some")
    if "OfflineModeIsEnabled" in names:
        return SourceFailure(
            "SOURCE_UNAVAILABLE", f"{where}: {text}", "unset HF_HUB_OFFLINE; `--dataset sample` works without a network"
        )
    if (
        isinstance(error, (ConnectionError, TimeoutError, socket.gaierror))
        or "LocalEntryNotFoundError" in names
        or (_root_module(error).startswith(("httpx", "httpcore")) and names & {"TransportError", "TimeoutException"})
        or _root_module(error) in ("requests", "urllib3")
    ):
        return unreachable(where, endpoint, error)
    if isinstance(error, PermissionError):
        return SourceFailure("SOURCE_UNAVAILABLE", f"{where} cannot be read: {text}", "check its permissions")
    if isinstance(error, FileNotFoundError):
        return SourceFailure(
            "SOURCE_UNAVAILABLE",
            f"{where} is gone: {text}",
            "was the file moved or deleted while it was read?",
            True,
            cause="the file is gone",
            attempts=GONE_ATTEMPTS,
        )
    if isinstance(error, MemoryError):
        return SourceFailure("OUT_OF_MEMORY_HOST", f"{where}: out of memory while reading", "lower --batch-size")
    if is_damage(error):
        return corrupt(f"{where} cannot be read: {text}")
    if isinstance(error, OSError):
        return SourceFailure(
            "SOURCE_UNAVAILABLE",
            f"{where} cannot be read: {text}",
            "check the disk or network",
            True,
            attempts=GONE_ATTEMPTS,
        )
    return None


def is_damage(error):
    """Whether an error says that data are not what they should be."""
    names = _names(error)
    if _status(error) is not None or isinstance(error, (ConnectionError, TimeoutError, SourceFailure)):
        return False
    # Arrow reports damaged pages as an OSError without a number.
    return (
        isinstance(error, (json.JSONDecodeError, zlib.error, EOFError))
        or bool(
            names & {"ArrowInvalid", "ArrowNotImplementedError", "ArrowSerializationError", "BadGzipFile", "ZstdError"}
        )
        or _root_module(error) == "pyarrow"
        or (type(error) is OSError and error.errno is None)
    )


def classify(error, where, endpoint, reading=False):
    """The failure that an exception means; `where` is the dataset or file, `reading` whether it had been found."""
    for link in chain(error):
        if isinstance(link, SourceFailure):
            return link
    links = chain(error)
    for link, to_the_cause in [(link, True) for link in links] + [(link, False) for link in links]:
        failure = _classify_one(link, where, endpoint, reading, to_the_cause)
        if failure is not None:
            failure.python_class = f"{type(error).__module__}.{type(error).__name__}"
            return failure
    failure = SourceFailure(
        "STREAMER_CRASHED",
        f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:500]}",
        "this is a bug, of candlewick or of a library it uses; the traceback is on stderr",
        True,
    )
    failure.python_class = f"{type(error).__module__}.{type(error).__name__}"
    return failure
