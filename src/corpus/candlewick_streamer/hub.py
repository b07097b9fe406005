"""A dataset of the Hugging Face Hub, and a directory in its layout, both as the `datasets` library resolves them."""

import os
import re
import socket

from .failure import SourceFailure, unreachable
from .local import local_files
from .remote import hub_files
from .source import DataFile, Source, format_of, split_missing, unreadable

CONNECT_SECONDS = 10


def endpoint():
    """Address of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def check_reachable(dataset):
    """Fails at once where nobody answers; the libraries would try for minutes."""
    import urllib.request  # Slow to load, and of no use to local files.

    url = urllib.parse.urlsplit(endpoint())
    if not url.hostname:
        raise SourceFailure(
            "SOURCE_UNAVAILABLE", f"HF_ENDPOINT is not an address: {endpoint()}", "it looks like https://huggingface.co"
        )
    proxies = urllib.request.getproxies()
    if (url.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(url.hostname):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise unreachable(f"the hub, for {dataset},", endpoint(), error) from error


def _pin(dataset, revision):
    """The commit that a revision (or the default branch) stands for now."""
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=endpoint(), library_name="candlewick")
    try:
        # The library asks for the same file, and takes its commit from its place in the cache, too.
        card = api.hf_hub_download(repo_id=dataset, filename="README.md", repo_type="dataset", revision=revision)
        return os.path.basename(os.path.dirname(card))
    except errors.LocalEntryNotFoundError:
        raise
    except errors.EntryNotFoundError:
        return api.dataset_info(dataset, revision=revision, timeout=100.0).sha


def _builder(location, dataset, config_name, revision):
    from datasets import load_dataset_builder

    try:
        return load_dataset_builder(location, name=config_name, revision=revision)
    except ValueError as error:
        text = str(error)
        names = re.search(r"[Aa]vailable(?: configs)?: \[(.*?)\]", text, re.DOTALL)
        if names is None:
            raise
        missing = "has no config " + repr(config_name) if config_name is not None else "has several configs"
        listed = names[1].replace("'", "").replace('"', "")
        raise SourceFailure(
            "DATASET_NOT_FOUND", f"{dataset} {missing}; there are: {listed}", "choose one of them with --config-name"
        ) from error


def _split_files(builder, dataset, split):
    """Locations of the split's data files."""
    splits = builder.config.data_files or {}
    by_name = {str(name): list(locations) for name, locations in splits.items()}
    if split not in by_name:
        raise split_missing(dataset, split, by_name)
    return by_name[split]


def _total_rows(builder, split):
    known = (builder.info.splits or {}).get(split)
    return getattr(known, "num_examples", None) or None


def _hub_files(locations):
    opener = hub_files(endpoint())
    files = []
    for location in sorted(set(locations)):
        kind, compression = format_of(location)
        # hf://datasets/owner/name@commit/path/in/repository
        match = re.fullmatch(r"hf://datasets/[^/@]+(?:/[^/@]+)?@[^/]+/(.+)", location)
        if kind is not None and match is not None:
            files.append(DataFile(match[1], location, kind, compression, False, opener(location)))
    return sorted(files, key=lambda file: file.path)


def find_on_hub(dataset, config_name, split, revision):
    """A dataset of the hub at one commit."""
    commit = _pin(dataset, revision)
    builder = _builder(dataset, dataset, config_name, commit)
    locations = _split_files(builder, dataset, split)
    files = _hub_files(locations)
    if not files:
        raise unreadable(dataset, locations)
    return Source(
        dataset=dataset,
        config_name=builder.config.name,
        split=split,
        revision=commit,
        files=files,
        total_rows=_total_rows(builder, split),
    )


def find_in_layout(path, dataset, split, config_name):
    """A local directory whose card says what its configs and splits are."""
    root = os.path.realpath(path)
    builder = _builder(root, dataset, config_name, None)
    locations = _split_files(builder, dataset, split)
    files = local_files(root, locations)
    if not files:
        raise unreadable(dataset, locations)
    return Source(
        dataset=dataset,
        config_name=builder.config.name,
        split=split,
        revision=None,
        files=files,
        total_rows=_total_rows(builder, split),
    )
