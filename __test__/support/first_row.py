"""Seconds from the start until the first row of a dataset, by `datasets` alone: prints one number.

Reads the dataset's name from its arguments.
"""

import sys
import time

STARTED = time.monotonic()

from datasets import load_dataset  # noqa: E402

dataset = load_dataset(sys.argv[1], split="train", streaming=True)
next(iter(dataset))
print(time.monotonic() - STARTED)
