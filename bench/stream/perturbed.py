"""The shared text again and again with words exchanged: `python perturbed.py SHARED OUT_DIR TIMES FILES`."""

import glob
import os
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 1000

shared, out, times, files = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
texts = []
for path in sorted(glob.glob(os.path.join(shared, "data", "**", "*.parquet"), recursive=True)):
    texts += pq.read_table(path, columns=["text"]).column(0).to_pylist()
os.makedirs(out, exist_ok=True)
draw = random.Random(7)
schema = pa.schema([("text", pa.string())])
writers = [
    pq.ParquetWriter(os.path.join(out, f"part-{index:05d}.parquet"), schema, compression="snappy")
    for index in range(files)
]
group, groups = [], 0
for _ in range(times):
    draw.shuffle(texts)
    for text in texts:
        words = text.split(" ")
        for _ in range(max(1, len(words) // 20)):
            a, b = draw.randrange(len(words)), draw.randrange(len(words))
            words[a], words[b] = words[b], words[a]
        group.append(" ".join(words))
        if len(group) == GROUP_ROWS:
            writers[groups % files].write_table(pa.table({"text": group}), row_group_size=GROUP_ROWS)
            group, groups = [], groups + 1
if group:
    writers[groups % files].write_table(pa.table({"text": group}), row_group_size=GROUP_ROWS)
for writer in writers:
    writer.close()
