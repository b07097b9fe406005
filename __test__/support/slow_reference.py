"""The order of training and its tokens, written a second time: Parquet read directly, no windows, no threads.

Reads JSON on stdin: root, files (sorted, relative), seed, epoch, window, held_out, tokenizer (tokenizer.json),
packages (folder with the `tokenizers` package), tokens (targets to hash; null: all). Prints JSON: for each document
in order the SHA-1 of its token ids (uint32, little endian, end-of-text included), and the rolling hash of the targets.
"""

import array
import hashlib
import importlib.util
import json
import pathlib
import sys

import pyarrow.parquet as pq

request = json.load(sys.stdin)
sys.path.insert(0, request["packages"])
from tokenizers import Tokenizer  # noqa: E402

fixtures = pathlib.Path(__file__).parents[2] / "scripts" / "fixtures" / "permutation.py"
spec = importlib.util.spec_from_file_location("permutation", fixtures)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def permutation(key: str, length: int) -> list[int]:
    return module.permutation(request["seed"], request["epoch"], key, length)


held_out = request["held_out"]
files = []  # for each file its row groups, each a list of texts; held-out ones are already empty
for path in request["files"]:
    parquet = pq.ParquetFile(pathlib.Path(request["root"]) / path)
    groups = []
    for group in range(parquet.num_row_groups):
        texts = parquet.read_row_group(group, columns=["text"])["text"].to_pylist()
        for i, text in enumerate(texts):
            if text and held_out > 0:
                held_out -= 1
                texts[i] = None
        groups.append(texts)
    files.append(groups)

waiting = []
for index in permutation("files", len(files)):
    groups = files[index]
    segments = [groups[i : i + 50] for i in range(0, len(groups), 50)]
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

tokenizer = Tokenizer.from_file(request["tokenizer"])
tokenizer.encode_special_tokens = True
end_of_text = tokenizer.token_to_id("<|endoftext|>")
digests, rolling, left, first = [], 0xCBF29CE484222325, request["tokens"], True
for start in range(0, len(ordered), 1000):
    for encoding in tokenizer.encode_batch_fast(ordered[start : start + 1000], add_special_tokens=False):
        ids = encoding.ids + [end_of_text]
        digests.append(hashlib.sha1(array.array("I", ids).tobytes()).hexdigest())
        for token in ids:
            if not first and left != 0:
                rolling = ((rolling ^ token) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
                left = None if left is None else left - 1
            first = False
json.dump({"digests": digests, "hash": f"{rolling:016x}"}, sys.stdout)
