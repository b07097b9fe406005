"""Makes the datasets of random runs, and says what must come of them: a line of JSON for each on stdin and stdout.

{"write": [{path, documents, groupRows, type}]}: writes a Parquet file, or JSON lines where the path says so.
{"reference": …}: as in support/slow_reference.py.
"""

import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
import slow_reference  # noqa: E402


def write(file):
    """Writes one file."""
    path = pathlib.Path(file["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    documents = file["documents"]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
        return
    kind = {"string": pa.string(), "large_string": pa.large_string()}[file["type"]]
    table = pa.table({"number": pa.array(range(len(documents)), pa.int64()), "text": pa.array(documents, kind)})
    pq.write_table(table, path, row_group_size=file["groupRows"], write_page_checksum=True)


for line in sys.stdin:
    request = json.loads(line)
    if "write" in request:
        for file in request["write"]:
            write(file)
        print("null", flush=True)
    else:
        print(json.dumps(slow_reference.reference(request["reference"])), flush=True)
