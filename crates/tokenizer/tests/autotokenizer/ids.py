"""Ids of texts as transformers' AutoTokenizer, the `tokenizers` package and tiktoken give them.

    python3 ids.py DIRECTORY… < texts.json > ids.json

Each directory is one that a tokenizer was saved to; texts.json is an array of strings. For each directory, by its last
name: `auto` and `tokenizers`, ids a text, special tokens recognised and none added; `auto_decoded`, those ids decoded;
`tiktoken`, ids a text with special tokens as text, or null where tiktoken is not installed, with the pattern of
`tokenizer.json` and the ranks of `tokenizer.tiktoken`; `eos`, the token that transformers takes for the end of a text.

This is also how a saved tokenizer is loaded with tiktoken. tiktoken has no normalizer: a text for a tokenizer with NFC
(the pattern qwen2) has to be brought to NFC first, by the tables of the `tokenizers` package (Unicode 9): Python's newer
ones order marks that came later.
"""

import json
import os
import sys

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def tiktoken_encoding(directory, definition):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    parts = definition["pre_tokenizer"].get("pretokenizers", [])
    pattern = next((part["pattern"]["Regex"] for part in parts if part["type"] == "Split"), GPT2)
    special = {token["content"]: token["id"] for token in definition["added_tokens"] if token["special"]}
    return tiktoken.Encoding(
        name=os.path.basename(directory),
        pat_str=pattern,
        mergeable_ranks=load_tiktoken_bpe(os.path.join(directory, "tokenizer.tiktoken")),
        special_tokens=special,
    )


def ids_of(directory, texts):
    from tokenizers import Tokenizer, normalizers
    from transformers import AutoTokenizer

    with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as file:
        definition = json.load(file)
    auto = AutoTokenizer.from_pretrained(directory)
    plain = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    ids = [auto.encode(text, add_special_tokens=False) for text in texts]
    try:
        encoding = tiktoken_encoding(directory, definition)
        composes = (definition["normalizer"] or {}).get("type") == "NFC"
        normal = normalizers.NFC().normalize_str if composes else str
        tiktoken_ids = [encoding.encode(normal(text), disallowed_special=()) for text in texts]
    except ImportError:
        tiktoken_ids = None
    return {
        "auto": ids,
        "auto_decoded": [auto.decode(one) for one in ids],
        "tokenizers": [plain.encode(text, add_special_tokens=False).ids for text in texts],
        "tiktoken": tiktoken_ids,
        "eos": auto.eos_token,
    }


if __name__ == "__main__":
    given = json.load(sys.stdin)
    found = {os.path.basename(directory): ids_of(directory, given) for directory in sys.argv[1:]}
    json.dump(found, sys.stdout)
