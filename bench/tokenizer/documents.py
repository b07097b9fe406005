"""Texts of Parquet files into one flat file: `python documents.py OUT FOLDER …`, each text after its length (u32, LE)."""

import glob
import os
import struct
import sys

import pyarrow.parquet as pq

out, folders = sys.argv[1], sys.argv[2:]
os.makedirs(os.path.dirname(out), exist_ok=True)
with open(out + ".part", "wb") as file:
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, "data", "**", "*.parquet"), recursive=True)):
            for text in pq.read_table(path, columns=["text"]).column(0).to_pylist():
                if text:
                    data = text.encode()
                    file.write(struct.pack("<I", len(data)))
                    file.write(data)
os.replace(out + ".part", out)
