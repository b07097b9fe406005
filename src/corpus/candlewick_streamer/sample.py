"""`sample`: the documentation and sources of the installed Python, real text that every machine has."""

import hashlib
import os
import platform
import sysconfig

from .block import BytesBlock
from .failure import SourceFailure
from .source import DataFile, Source, column_missing, split_missing

VIRTUAL_FILES = 3
LEFT_OUT = {"test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo", "site-packages", "dist-packages"}
LEFT_OUT |= {"__pycache__", "lib2to3", "ensurepip", "lib-dynload"}
#: Written by whoever installed Python, so not the same on every machine.
MACHINE_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize", "_sysconfig_vars")


def _modules(root):
    """(name, path) of the standard library's modules."""
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("config-"))
        for name in sorted(files):
            path = os.path.join(directory, name)
            if not name.endswith(".py") or name.startswith(MACHINE_FILES) or os.path.islink(path):
                continue
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            if relative != "pydoc_data/topics.py":
                yield relative, path


def _topics():
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return {}
    return topics


def _documents():
    """(name, reader) of every document, ordered by the hash of its name so that any part of it is representative."""
    found = []
    for name, path in _modules(sysconfig.get_paths()["stdlib"]):
        found.append((name, path, None))
    for topic, text in _topics().items():
        found.append((f"pydoc_data/topics/{topic}", None, text.encode("utf-8")))
    return sorted(found, key=lambda entry: hashlib.sha256(entry[0].encode()).digest())


def _read(path, text):
    if text is not None:
        return text, 0
    with open(path, "rb") as file:
        content = file.read()
    try:
        content.decode("utf-8")
        return content, 0
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace").encode("utf-8"), 1


def _blocks(documents):
    for start in range(0, len(documents), 100):
        read = [_read(path, text) for _, path, text in documents[start : start + 100]]
        yield BytesBlock([content for content, _ in read]), sum(changed for _, changed in read)


def find(split, column):
    """The dataset `sample`: split `train`, column `text`, a few files that exist only by name."""
    if split != "train":
        raise split_missing("sample", split, ["train"])
    if column != "text":
        raise column_missing("sample", column, ["text"])
    documents = [entry for entry in _documents() if entry[1] is None or os.path.getsize(entry[1])]
    if len(documents) < VIRTUAL_FILES:
        raise SourceFailure(
            "DATASET_EMPTY",
            "this Python has no sources of its standard library to take `sample` from",
            "use another Python (--python, CANDLEWICK_PYTHON), or another dataset",
        )
    # The names and sizes are part of the files' names, so that a run is not continued over other text.
    digest = hashlib.sha256()
    for name, path, text in documents:
        digest.update(f"{name} {len(text) if path is None else os.path.getsize(path)}\n".encode())
    base = f"python-{platform.python_version()}-{digest.hexdigest()[:12]}"
    parts = {}
    for part in range(VIRTUAL_FILES):
        path = f"{base}/{part}"
        parts[path] = documents[part * len(documents) // VIRTUAL_FILES : (part + 1) * len(documents) // VIRTUAL_FILES]
    files = [DataFile(path, path, "sample", None, True, lambda: None) for path in parts]
    return Source(
        dataset="sample",
        config_name=None,
        split="train",
        revision=None,
        files=files,
        total_rows=len(documents),
        columns=["text"],
        reader=lambda file: _blocks(parts[file.path]),
    )
