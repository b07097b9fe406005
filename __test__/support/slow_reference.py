"""The order of training and its tokens, written a second time: files read directly, no windows, no threads.

Reads requests on stdin, a line of JSON each: root, files (sorted, relative; .parquet, or .jsonl without row groups),
seed, epoch, window, held_out, tokenizer (tokenizer.json), packages (folder with the `tokenizers` package), tokens
(targets to hash; null: all), ids (whether to give them all). Answers each by a line of JSON: for each document in order
the SHA-1 of its token ids (uint32, little endian, end-of-text included), the rolling hash of the targets, and the ids.
"""

import array
import hashlib
import importlib.util
import json
import pathlib
import sys

import pyarrow.parquet as pq

fixtures = pathlib.Path(__file__).parents[2] / "scripts" / "fixtures" / "permutation.py"
spec = importlib.util.spec_from_file_location("permutation", fixtures)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def turns_of(path):
    """The texts of a file, a list for each turn, and whether the turns are row groups."""
    if path.suffix == ".parquet":
        parquet = pq.ParquetFile(path)
        groups = range(parquet.num_row_groups)
        return [parquet.read_row_group(group, columns=["text"])["text"].to_pylist() for group in groups], True
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").split("\n") if line]
    # That such a file is empty shows only when it is read: it takes a turn, with nothing in it.
    return [texts[i : i + 1000] for i in range(0, max(len(texts), 1), 1000)], False


def in_order(request):
    """The documents of an epoch in the order of training."""

    def permutation(key, length):
        return module.permutation(request["seed"], request["epoch"], key, length)

    held_out = request["held_out"]
    files = []  # held-out documents are already empty
    for path in request["files"]:
        groups, row_groups = turns_of(pathlib.Path(request["root"]) / path)
        for texts in groups:
            for i, text in enumerate(texts):
                if text and held_out > 0:
                    held_out -= 1
                    texts[i] = None
        files.append((groups, row_groups))
    waiting = []
    for index in permutation("files", len(files)):
        groups, row_groups = files[index]
        length = 50 if row_groups else max(len(groups), 1)
        segments = [groups[i : i + length] for i in range(0, len(groups), length)]
        order = permutation(f"segments|{request['files'][index]}", len(segments))
        turns = [group for s in order for group in segments[s]]
        if turns:
            waiting.append(turns)
    places = [waiting.pop(0) if waiting else None for _ in range(4)]
    documents = []
    while any(places):
        for place, turns in enumerate(places):
            if turns:
                documents += [text for text in turns.pop(0) if text]
                if not turns:
                    places[place] = waiting.pop(0) if waiting else None
    ordered = []
    for number, start in enumerate(range(0, len(documents), request["window"])):
        window = documents[start : start + request["window"]]
        ordered += [window[i] for i in permutation(f"window|{number}", len(window))]
    return ordered


def reference(request):
    """The answer to a request."""
    if request["packages"] not in sys.path:
        sys.path.insert(0, request["packages"])
    from tokenizers import Tokenizer

    ordered = in_order(request)
    tokenizer = Tokenizer.from_file(request["tokenizer"])
    tokenizer.encode_special_tokens = True
    end_of_text = tokenizer.token_to_id("<|endoftext|>")
    digests, rolling, left, first = [], 0xCBF29CE484222325, request["tokens"], True
    documents = []
    for start in range(0, len(ordered), 1000):
        for encoding in tokenizer.encode_batch_fast(ordered[start : start + 1000], add_special_tokens=False):
            ids = encoding.ids + [end_of_text]
            digests.append(hashlib.sha1(array.array("I", ids).tobytes()).hexdigest())
            if request.get("ids"):
                documents.append(ids)
            for token in ids:
                if not first and left != 0:
                    rolling = ((rolling ^ token) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
                    left = None if left is None else left - 1
                first = False
    return {"digests": digests, "hash": f"{rolling:016x}", "ids": documents}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(reference(json.loads(line))), flush=True)
