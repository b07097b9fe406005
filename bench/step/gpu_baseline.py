"""PyTorch at the shapes of `gpu-check`, on the same GPU in the same sitting: `python gpu_baseline.py`.

Compiled, fused attention, fused AdamW, bf16 by autocast over f32 weights, clipping; random tokens, the same formula of MFU.
Rows of a batch are halved until they fit.
"""

import statistics
import time

import torch
from qwen3 import Qwen3, Shape, optimizer

PEAKS = [("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200 NVL", 835e12), ("H200", 989e12), ("A100", 312e12)]

SIZES = {
    "124M": Shape(768, 2048, 12, 12, 12, 64, 50304),
    "0.5B": Shape(1280, 3584, 20, 20, 10, 64, 50304),
    "1.1B": Shape(2048, 5632, 20, 16, 8, 128, 50304),
    "1.5B": Shape(2048, 6144, 28, 16, 8, 128, 50304),
}


def flops(model, shape, length):
    """6 · parameters in products (head included, embedding not) + 6 · layers · T · heads · head_dim, of a token."""
    blocks = sum(weight.numel() for name, weight in model.named_parameters() if "layers" in name and weight.dim() == 2)
    head = shape.vocab_size * shape.hidden_size
    return 6 * (blocks + head) + 6 * shape.num_hidden_layers * length * shape.num_attention_heads * shape.head_dim


def measure(shape, length, rows):
    torch.manual_seed(1)
    model = Qwen3(shape, length).cuda()
    compiled = torch.compile(model)
    updates = optimizer(model, lr=1e-4)
    ids = torch.randint(shape.vocab_size, (rows, length), device="cuda")
    targets = torch.randint(shape.vocab_size, (rows, length), device="cuda")

    def step():
        updates.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        updates.step()
        torch.cuda.synchronize()

    for _ in range(3):
        step()
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), flops(model, shape, length), torch.cuda.max_memory_allocated()


def main():
    name = torch.cuda.get_device_name(0)
    peak = next((peak for part, peak in PEAKS if part in name), None)
    print(f"PyTorch {torch.__version__}, {name}", flush=True)
    torch.set_float32_matmul_precision("high")
    for label, shape in SIZES.items():
        for length in (1024, 2048):
            rows = 32
            while rows > 0:
                try:
                    torch.cuda.reset_peak_memory_stats()
                    seconds, per_token, memory = measure(shape, length, rows)
                except torch.cuda.OutOfMemoryError:
                    rows //= 2
                    torch.cuda.empty_cache()
                    torch._dynamo.reset()
                    continue
                speed = rows * length / seconds
                mfu = "peak not known" if peak is None else f"MFU {100 * per_token * speed / peak:.1f} %"
                print(f"| {label} | {length} | {rows} rows | {speed:.0f} tok/s, {1e3 * seconds:.1f} ms a step | {mfu} | {memory / 1e9:.2f} GB |", flush=True)
                break
            torch._dynamo.reset()
            torch.cuda.empty_cache()


main()
