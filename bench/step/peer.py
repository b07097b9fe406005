"""PyTorch's side of `npm run bench:step`: `peer.py eager|compiled THREADS SPEC`, SPEC as JSON.

A line on stdin asks for so many steps; a line on stdout answers with their seconds.
"""

import json
import resource
import sys
import time

import torch
from qwen3 import Qwen3, Shape, optimizer, step


def main():
    mode, threads, spec = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    shape, rows, length = Shape(**spec["model"]), spec["rows"], spec["length"]
    model = Qwen3(shape, length)
    loss_of = torch.compile(model) if mode == "compiled" else model
    updates = optimizer(model, lr=1e-6)
    ids = torch.randint(shape.vocab_size, (rows, length))
    targets = torch.randint(shape.vocab_size, (rows, length))
    for _ in range(2):
        loss = step(loss_of, model, updates, ids, targets)
    say({"version": f"PyTorch {torch.__version__}", "parameters": count(model), "loss": loss})
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step(loss_of, model, updates, ids, targets)
            seconds.append(time.perf_counter() - began)
        say({"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def count(model):
    return sum(weight.numel() for weight in model.parameters())


def say(answer):
    print(json.dumps(answer), flush=True)


main()
