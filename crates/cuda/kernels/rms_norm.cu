// Root mean square normalisation (Zhang, Sennrich 2019), with the residual sum before it.
#include "device.cuh"

// s = x + Δ, r = 1 / √(mean(s²) + ε), y = s · r · w.
//
// The sum is rounded to bf16 before it is normalised: the way back reads it so. Without delta (null) s is x, and sum
// is not written. sum may be x or delta: a value is read and written by one thread.
//
// sum, y, x, delta bf16 [rows, width], rstd f32 [rows] (r), w bf16 [width]; width a multiple of 8.
// A warp takes a row and keeps it in its part of shared memory, 2 · width bytes a warp.
extern "C" __global__ void __launch_bounds__(256)
    add_rms_norm_forward(bf16* sum, bf16* __restrict__ y, float* __restrict__ rstd, const bf16* x, const bf16* delta,
                         const bf16* __restrict__ w, int rows, int width, float eps) {
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const long long row = static_cast<long long>(blockIdx.x) * (blockDim.x / WARP) + warp;
  if (row >= rows) return;
  const long long start = row * width;
  uint4* kept = dynamic_shared<uint4>() + warp * (width / 8);
  float squares = 0.0f;
  for (int at = lane * 8; at < width; at += WARP * 8) {
    uint4 pack = *reinterpret_cast<const uint4*>(x + start + at);
    float values[8];
    unpack8(values, pack);
    if (delta != nullptr) {
      float added[8];
      load8(added, delta + start + at);
      UNROLL
      for (int i = 0; i < 8; ++i) values[i] += added[i];
      pack = pack8(values);
      unpack8(values, pack);
      *reinterpret_cast<uint4*>(sum + start + at) = pack;
    }
    kept[at / 8] = pack;
    UNROLL
    for (int i = 0; i < 8; ++i) squares += values[i] * values[i];
  }
  const float r = rsqrtf(warp_sum(squares) / static_cast<float>(width) + eps);
  if (lane == 0) rstd[row] = r;
  // A lane reads what it wrote itself, so nothing has to be waited for.
  for (int at = lane * 8; at < width; at += WARP * 8) {
    float values[8], weights[8];
    unpack8(values, kept[at / 8]);
    load8(weights, w + at);
    UNROLL
    for (int i = 0; i < 8; ++i) values[i] *= r * weights[i];
    store8(y + start + at, values);
  }
}

// With s = r² / C · Σ dy·w·x a row: dx = r · (dy·w − x·s) + dresidual, dw = Σ over rows of dy·x·r.
//
// dresidual (or null) is the gradient that reaches x past the norm; dx may be dresidual or dy. Block p sums dw over the
// rows p, p + parts, …, into row p of dw_partial; reduce_partials adds those up.
//
// dx, dy, x, dresidual bf16 [rows, width], dw_partial f32 [gridDim.x, width], rstd f32 [rows], w bf16 [width].
// A thread has eight columns in registers: width ≤ 8 · blockDim.x. Shared memory: 64 floats.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_backward(bf16* dx, float* __restrict__ dw_partial, const bf16* dy, const bf16* __restrict__ x,
                      const float* __restrict__ rstd, const bf16* __restrict__ w, const bf16* dresidual, int rows,
                      int width) {
  float* scratch = dynamic_shared<float>();
  const int column = threadIdx.x * 8;
  const bool inside = column < width;
  float weights[8] = {}, sums[8] = {};
  if (inside) load8(weights, w + column);
  int parity = 0;
  for (int row = blockIdx.x; row < rows; row += gridDim.x, parity ^= 1) {
    const long long at = static_cast<long long>(row) * width + column;
    const float r = rstd[row];
    float grads[8] = {}, values[8] = {};
    float dot = 0.0f;
    if (inside) {
      load8(grads, dy + at);
      load8(values, x + at);
      UNROLL
      for (int i = 0; i < 8; ++i) {
        sums[i] += grads[i] * values[i] * r;
        grads[i] *= weights[i];
        dot += grads[i] * values[i];
      }
    }
    // Two scratches by turns: one barrier a row is enough.
    const float s = block_sum(dot, scratch + parity * WARP) * r * r / static_cast<float>(width);
    if (inside) {
      float past[8] = {};
      if (dresidual != nullptr) load8(past, dresidual + at);
      UNROLL
      for (int i = 0; i < 8; ++i) grads[i] = r * (grads[i] - values[i] * s) + past[i];
      store8(dx + at, grads);
    }
  }
  if (inside) store8(dw_partial + static_cast<long long>(blockIdx.x) * width + column, sums);
}

// dw[c] += Σ over parts of partial[p][c], in a fixed order.
//
// dw f32 [width], partial f32 [parts, stride]. A block of 256 takes 32 columns, eight threads a column.
// Shared memory: 256 floats.
extern "C" __global__ void __launch_bounds__(256)
    reduce_partials(float* __restrict__ dw, const float* __restrict__ partial, int parts, int stride, int width) {
  float* sums = dynamic_shared<float>();
  const int group = threadIdx.x / WARP, groups = blockDim.x / WARP;
  const int column = blockIdx.x * WARP + threadIdx.x % WARP;
  float sum = 0.0f;
  if (column < width) {
    for (int part = group; part < parts; part += groups) sum += partial[static_cast<long long>(part) * stride + column];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (group == 0 && column < width) {
    for (int other = 1; other < groups; ++other) sum += sums[other * WARP + threadIdx.x];
    dw[column] += sum;
  }
}

EMULATED(add_rms_norm_forward, rms_norm_backward, reduce_partials)
