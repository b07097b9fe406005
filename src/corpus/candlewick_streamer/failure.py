"""What can go wrong, as the codes that the parent knows."""

import json
import socket
import sys
import zlib

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


class SourceFailure(Exception):
    """A failure that the user is told about."""

    def __init__(self, code, message, hint, retryable=False):
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
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
        "SOURCE_UNAVAILABLE", f"{what} cannot be reached: {error}", OFFLINE_HINT.format(endpoint=endpoint), True
    )


def chain(error):
    """The error and all that led to it, latest first."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
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


def _classify_one(error, where, endpoint):
    names = _names(error)
    status = _status(error)
    text = " ".join(str(error).split())[:500] or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return package_missing(error.name or text)
    if "GatedRepoError" in names:
        return SourceFailure("AUTH_REQUIRED", f"{where} is gated: {text}", TOKEN_HINT)
    if "RevisionNotFoundError" in names:
        return SourceFailure(
            "DATASET_NOT_FOUND",
            f"{where} has no such revision",
            "leave out --revision, or name a commit, tag or branch",
        )
    if "RepositoryNotFoundError" in names:
        return SourceFailure(
            "DATASET_NOT_FOUND",
            f"there is no dataset {where} on {endpoint}, or it is private",
            "check the spelling (owner/name); for a private dataset set HF_TOKEN; a local path must exist",
        )
    if status in (401, 403):
        return SourceFailure("AUTH_REQUIRED", f"{where}: the hub answered {status}: {text}", TOKEN_HINT)
    if status is not None:
        return SourceFailure(
            "SOURCE_UNAVAILABLE", f"{where}: the hub answered {status}", OFFLINE_HINT.format(endpoint=endpoint), True
        )
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
    ):
        return unreachable(where, endpoint, text)
    if isinstance(error, PermissionError):
        return SourceFailure("SOURCE_UNAVAILABLE", f"{where} cannot be read: {text}", "check its permissions")
    if isinstance(error, FileNotFoundError):
        return SourceFailure(
            "SOURCE_UNAVAILABLE", f"{where} is gone: {text}", "was the file moved or deleted while it was read?", True
        )
    if isinstance(error, MemoryError):
        return SourceFailure("OUT_OF_MEMORY_HOST", f"{where}: out of memory while reading", "lower --batch-size")
    if (
        isinstance(error, (json.JSONDecodeError, zlib.error, EOFError))
        or names & {"ArrowInvalid", "ArrowNotImplementedError", "ArrowSerializationError", "BadGzipFile", "ZstdError"}
        or _root_module(error) == "pyarrow"
    ):
        return SourceFailure(
            "SOURCE_CORRUPT", f"{where} cannot be read: {text}", "the file is damaged or not what its name says"
        )
    if isinstance(error, OSError):
        # Arrow reports damaged pages, too, as an OSError without a number.
        if error.errno is None:
            return SourceFailure(
                "SOURCE_CORRUPT", f"{where} cannot be read: {text}", "the file is damaged or not what its name says"
            )
        return SourceFailure("SOURCE_UNAVAILABLE", f"{where} cannot be read: {text}", "check the disk or network", True)
    return None


def classify(error, where, endpoint):
    """The failure that an exception means; `where` is the dataset or file that was being read."""
    for link in chain(error):
        if isinstance(link, SourceFailure):
            return link
    for link in chain(error):
        failure = _classify_one(link, where, endpoint)
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
