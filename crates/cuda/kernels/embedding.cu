// The embedding of tokens and its gradient.
#include "device.cuh"

// y[t] = W[id(t)].
//
// out bf16 [tokens, width], ids u32 [tokens] below the rows of w, w bf16 [V, width]; width a multiple of 8.
// A thread copies 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
    embedding_forward(bf16* __restrict__ out, const unsigned* __restrict__ ids, const bf16* __restrict__ w,
                      int tokens, int width) {
  const int packs = width / 8;
  const long long at = global_thread();
  const long long token = at / packs;
  if (token >= tokens) return;
  const int pack = static_cast<int>(at - token * packs);
  const uint4* row = reinterpret_cast<const uint4*>(w + static_cast<long long>(ids[token]) * width);
  reinterpret_cast<uint4*>(out)[at] = row[pack];
}

// dW[v] += Σ dy[t] over the tokens t with id v, in the order of t.
//
// The host sorts the tokens by id, stably: segment s is the tokens order[starts[s] .. starts[s + 1]), all of them with
// id segment_ids[s]. No two segments have the same id, so each row of dW has one writer and the sum a fixed order.
//
// dw f32 [V, width], dy bf16 [tokens, width], order u32 [tokens], starts u32 [segments + 1], segment_ids u32
// [segments]. A thread sums eight columns of a segment; grid [segments, ⌈width / (8 · block)⌉].
extern "C" __global__ void __launch_bounds__(128)
    embedding_backward(float* __restrict__ dw, const bf16* __restrict__ dy, const unsigned* __restrict__ order,
                       const unsigned* __restrict__ starts, const unsigned* __restrict__ segment_ids, int width) {
  const int column = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (column >= width) return;
  const unsigned end = starts[blockIdx.x + 1];
  float* row = dw + static_cast<long long>(segment_ids[blockIdx.x]) * width + column;
  float sum[8], value[8];
  load8(sum, row);
  // Unrolled so that the loads of several rows are under way at once; the additions keep their order.
  UNROLL_4
  for (unsigned i = starts[blockIdx.x]; i < end; ++i) {
    load8(value, dy + static_cast<long long>(order[i]) * width + column);
    UNROLL
    for (int j = 0; j < 8; ++j) sum[j] += value[j];
  }
  store8(row, sum);
}

EMULATED(embedding_forward, embedding_backward)
