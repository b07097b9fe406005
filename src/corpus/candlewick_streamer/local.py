"""A file of this machine, or a directory of files."""

import os
import re

from .failure import SourceFailure
from .source import READABLE, DataFile, Source, format_of, open_local, split_missing, unreadable

#: A front matter that says which files make which split.
CONFIGS = re.compile(r"\A---\r?\n(?:.*\r?\n)*?configs:", re.MULTILINE)


def looks_like_path(dataset):
    """Whether a dataset that does not exist was meant as a path."""
    prefixes = (os.sep, "." + os.sep, ".." + os.sep, "~", "/", "./", "../")
    return dataset.startswith(prefixes) or dataset.count("/") > 1 or format_of(dataset)[0] is not None


def missing(dataset):
    """There is no such file or directory."""
    return SourceFailure(
        "DATASET_NOT_FOUND",
        f"there is no file or directory {os.path.abspath(os.path.expanduser(dataset))}",
        f"name a hub dataset (owner/name), `sample`, a directory, or a file: {READABLE}",
    )


def has_configs(directory):
    """Whether a directory is in hub layout: its card, or the file that stands in for it, says which files it has."""
    if os.path.isfile(os.path.join(directory, ".huggingface.yaml")):
        return True
    card = os.path.join(directory, "README.md")
    if not os.path.isfile(card):
        return False
    with open(card, encoding="utf-8", errors="replace") as file:
        front_matter = file.read(1 << 20).partition("\n---")[0]
    return CONFIGS.match(front_matter) is not None


def find_file(path, dataset, split):
    """One file: the split `train`."""
    if split != "train":
        raise split_missing(dataset, split, ["train"])
    path = os.path.abspath(path)
    kind, compression = format_of(path)
    if kind is None:
        raise unreadable(dataset, [path])
    file = DataFile(path, path, kind, compression, True, open_local(path))
    return Source(dataset=dataset, config_name=None, split=split, revision=None, files=[file])


def local_files(root, paths):
    """Data files of a directory, sorted, without those that cannot be read."""
    files = []
    for path in sorted(set(paths)):
        kind, compression = format_of(path)
        if kind is not None:
            name = os.path.relpath(path, root).replace(os.sep, "/")
            files.append(DataFile(name, path, kind, compression, True, open_local(path)))
    return sorted(files, key=lambda file: file.path)


def find_directory(path, dataset, split, config_name):
    """A directory of loose files; splits are told by file and folder names, as the `datasets` library tells them."""
    from datasets import data_files

    root = os.path.realpath(path)
    if config_name is not None:
        raise SourceFailure(
            "DATASET_NOT_FOUND",
            f"{dataset} has no config {config_name!r}: its README.md names none",
            "leave out --config-name",
        )
    try:
        patterns = data_files.get_data_patterns(root)
        found = {
            str(name): data_files.DataFilesList.from_patterns(of_split, base_path=root)
            for name, of_split in patterns.items()
        }
    except data_files.EmptyDatasetError:
        found = {}
    if not any(found.values()):
        raise SourceFailure("DATASET_EMPTY", f"{dataset} has no files", f"what can be read: {READABLE}")
    if split not in found:
        raise split_missing(dataset, split, found)
    files = local_files(root, found[split])
    if not files:
        raise unreadable(dataset, found[split])
    return Source(dataset=dataset, config_name=None, split=split, revision=None, files=files)
