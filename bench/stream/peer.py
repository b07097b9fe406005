"""The peers of bench/stream.ts: `python peer.py MODE '{"dataset": …}'` prints a line of JSON.

arrow      `datasets` alone, streaming batches of 1,000 rows as Arrow tables
tokenized  `datasets` with shuffle(buffer_size=10_000), documents batched by 1,000 into `tokenizers`' encode_batch
resume     `datasets` with state_dict: reads a share of the rows, then a new dataset goes on from there
json       the batches of local Parquet files as JSON arrays, one a line, on stdout (counts go to stderr)
"""

import json
import os
import sys
import time

mode, options = sys.argv[1], json.loads(sys.argv[2])
if options.get("packages"):
    sys.path.insert(0, options["packages"])
started = time.monotonic()


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def say(**result):
    result["cpu"] = sum(os.times()[:4])
    print(json.dumps(result), flush=True)


def open_dataset():
    import datasets

    return datasets.load_dataset(options["dataset"], split="train", streaming=True, columns=["text"])


def arrow():
    dataset = open_dataset().with_format("arrow")
    opened = time.monotonic()
    rows = size = 0
    first, half, peaks = None, options.get("half", 0), []
    for table in dataset.iter(batch_size=1000):
        first = first or time.monotonic()
        rows += table.num_rows
        size += table.column("text").nbytes
        if half and len(peaks) == 0 and size >= half:
            peaks.append(peak_bytes())
            forget_peak()
        if size >= options.get("bytes", 1 << 60):
            break
    end = time.monotonic()
    peaks.append(peak_bytes())
    say(rows=rows, bytes=size, seconds=end - opened, first=first - started, peaks=peaks)


def tokenized():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(options["tokenizer"])
    dataset = open_dataset().shuffle(seed=1, buffer_size=10_000)
    opened = time.monotonic()
    rows = size = tokens = 0
    batch = []
    for row in dataset:
        batch.append(row["text"])
        if len(batch) == 1000:
            tokens += sum(len(encoding.ids) for encoding in tokenizer.encode_batch(batch))
            rows += len(batch)
            size += sum(len(text.encode()) for text in batch)
            batch = []
            if size >= options["bytes"]:
                break
    say(rows=rows, bytes=size, tokens=tokens, seconds=time.monotonic() - opened)


def resume():
    dataset = open_dataset().shuffle(seed=1, buffer_size=options["window"])
    for index, _ in enumerate(dataset, 1):
        if index == options["rows"]:
            break
    state = dataset.state_dict()
    print(json.dumps({"stopped": index}), flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    dataset = open_dataset().shuffle(seed=1, buffer_size=options["window"])
    dataset.load_state_dict(state)
    next(iter(dataset))
    say(seconds=time.monotonic() - began)


def as_json():
    import glob

    import pyarrow.parquet as parquet

    size = 0
    began = time.monotonic()
    for path in sorted(glob.glob(os.path.join(options["dataset"], "**", "*.parquet"), recursive=True)):
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1000, columns=["text"], use_threads=False):
            texts = batch.column(0).to_pylist()
            size += sum(map(len, texts))
            sys.stdout.write(json.dumps(texts, ensure_ascii=False))
            sys.stdout.write("\n")
    sys.stdout.flush()
    print(json.dumps({"characters": size, "seconds": time.monotonic() - began}), file=sys.stderr)


{"arrow": arrow, "tokenized": tokenized, "resume": resume, "json": as_json}[mode]()
sys.stdout.flush()
# What read a part of a stream may abort at exit.
os._exit(0)
