"""The peers of bench/tokenizer.ts: `python peer.py '{"peer": …}'`, one process each, prints a line of JSON.

Each is called as its own documentation says for many texts on one thread, with the type of text that it takes without
converting: `str` for tokenizers and tiktoken, `bytes` for gigatoken. Ids are read out for the digest only, after the
clock has stopped.
"""

import hashlib
import json
import os
import struct
import sys
import time
from array import array

work = json.loads(sys.argv[1])
sys.path.insert(0, work["packages"])
os.environ["TOKENIZERS_PARALLELISM"] = "false"
file = os.path.join(work["tokenizer"], "tokenizer.json")

texts, size = [], 0
with open(work["documents"], "rb") as documents:
    data = documents.read()
at = 0
while at < len(data) and size < work["bytes"]:
    (length,) = struct.unpack_from("<I", data, at)
    texts.append(data[at + 4 : at + 4 + length])
    size += length
    at += 4 + length
del data


def strings():
    return [text.decode("utf-8", "replace") for text in texts]


def chunks(batch, of=1000):
    return (batch[start : start + of] for start in range(0, len(batch), of))


def tokenizers():
    import tokenizers as library

    tokenizer = library.Tokenizer.from_file(file)
    batch = strings()
    # 0.23 has a call that leaves offsets out; 1.0 has one call.
    call = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)

    def encode():
        # By the thousand and dropped at once: the encodings of everything would take gigabytes.
        for chunk in chunks(batch):
            call(chunk, add_special_tokens=False)

    def ids():
        for chunk in chunks(batch):
            for encoding in call(chunk, add_special_tokens=False):
                yield array("I", encoding.ids).tobytes()

    return library.__version__, encode, ids


def tiktoken():
    from importlib.metadata import version

    import tiktoken as library
    from tiktoken_ext.openai_public import r50k_pat_str

    with open(file) as source:
        definition = json.load(source)
    characters = spelling()
    special = {token["content"]: token["id"] for token in definition["added_tokens"]}
    ranks = {
        bytes(characters[character] for character in token): rank
        for token, rank in definition["model"]["vocab"].items()
        if token not in special
    }
    pattern = r50k_pat_str
    for part in (definition["pre_tokenizer"] or {}).get("pretokenizers", []):
        if part["type"] == "Split":
            pattern = part["pattern"]["Regex"]
    encoding = library.Encoding("bench", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    batch = strings()

    def encode():
        for text in batch:
            encoding.encode_to_numpy(text, disallowed_special=())

    def ids():
        for text in batch:
            yield encoding.encode_to_numpy(text, disallowed_special=()).astype("<u4").tobytes()

    return version("tiktoken"), encode, ids


def spelling():
    """Byte of each character that byte-level BPE spells it with."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + at): byte for at, byte in enumerate(hidden)}


def gigatoken():
    from importlib.metadata import version

    import gigatoken as library

    tokenizer = library.Tokenizer(file)
    kept = []

    def encode():
        kept.clear()
        kept.append(tokenizer.encode_batch(texts, parallel=False))

    def ids():
        import awkward
        import numpy

        flat = numpy.asarray(awkward.flatten(kept[0]), dtype="<u4")
        ends = numpy.cumsum(numpy.asarray(awkward.num(kept[0])))
        for start, end in zip([0, *ends], ends):
            yield flat[start:end].tobytes()

    return version("gigatoken"), encode, ids


began = time.perf_counter()
version, encode, ids = {"tokenizers": tokenizers, "tiktoken": tiktoken, "gigatoken": gigatoken}[work["peer"]]()
outcome = {"version": version, "bytes": size, "documents": len(texts), "load": time.perf_counter() - began, "passes": []}
for _ in range(work["passes"]):
    cpu, start = time.process_time(), time.perf_counter()
    encode()
    seconds = time.perf_counter() - start
    outcome["passes"].append({"seconds": seconds, "cpu": time.process_time() - cpu})
if work["digest"]:
    outcome["digests"], outcome["tokens"] = [], 0
    for document in ids():
        outcome["digests"].append(hashlib.sha1(document).hexdigest()[:8])
        outcome["tokens"] += len(document) // 4
print(json.dumps(outcome))
