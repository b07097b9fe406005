"""Trains one peer on documents in memory: `peer.py PEER DOCUMENTS VOCAB_SIZE MERGES`; prints its seconds as JSON.

The merges go into that file, one a line, both tokens in hexadecimal. DOCUMENTS holds each text after its length.
"""

import json
import resource
import struct
import sys
import time

SPECIAL = "<|endoftext|>"


def documents(path):
    data = open(path, "rb").read()
    at, texts = 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return texts


def tokenizers(texts, vocab_size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = [text.decode() for text in texts]
    began = time.perf_counter()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    seconds = time.perf_counter() - began
    kept = [byte for byte in range(256) if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD)]
    bytes_of = {chr(byte): byte for byte in kept}
    for at, byte in enumerate(byte for byte in range(256) if byte not in kept):
        bytes_of[chr(256 + at)] = byte
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return seconds, [[bytes(bytes_of[c] for c in part) for part in pair] for pair in merges]


def gigatoken(texts, vocab_size):
    import gigatoken

    separator = SPECIAL.encode()
    data = separator.join(text.replace(separator, b"") for text in texts)
    began = time.perf_counter()
    _, merges = gigatoken.train_bpe(data, vocab_size, [SPECIAL], tie_breaking="huggingface", separator=separator)
    return time.perf_counter() - began, merges


def rustbpe(texts, vocab_size):
    import rustbpe

    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    texts = [text.decode() for text in texts]
    tokenizer = rustbpe.Tokenizer()
    began = time.perf_counter()
    tokenizer.train_from_iterator(iter(texts), vocab_size - 1, pattern=pattern)
    return time.perf_counter() - began, []


name, path, vocab_size, output = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
seconds, merges = globals()[name](documents(path), vocab_size)
with open(output, "w") as file:
    file.writelines(f"{left.hex()} {right.hex()}\n" for left, right in merges)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "merges": len(merges), "peak": peak}))
