// The loss over rows of logits, which become their gradient in place.
#include "device.cuh"

// The maximum m and Σ exp2(x − m) of some values, in units of log₂.
struct Exponentials {
  float max, sum;
};

// Far below any logit, and finite: the difference of two of them is 0 and not "not a number".
constexpr float LOWEST = -1e30f;

__device__ __forceinline__ Exponentials joined(Exponentials a, Exponentials b) {
  const float max = fmaxf(a.max, b.max);
  return {max, a.sum * fast_exp2(a.max - max) + b.sum * fast_exp2(b.max - max)};
}

__device__ __forceinline__ Exponentials warp_joined(Exponentials mine) {
  UNROLL
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    const float max = __shfl_xor_sync(0xFFFFFFFFu, mine.max, offset);
    const float sum = __shfl_xor_sync(0xFFFFFFFFu, mine.sum, offset);
    mine = joined(mine, {max, sum});
  }
  return mine;
}

// With L = ln Σᵥ exp(zᵥ) and p = exp(z − L): loss = L − z_target, dz = scale · ((1 + 2·ζ·L)·p − 1[v = target]).
//
// ζ·L² (z-loss, Chowdhery et al. 2022) has its part in the gradient; the loss that is told stays the cross-entropy.
// The maximum and the sum are made in one pass (Milakov, Gimelshein 2018), the second pass finds the row in the cache.
// A target of 0xFFFFFFFF counts for nothing: loss and gradient are 0. Another target that is not below the vocabulary
// makes the loss not a number.
//
// logits bf16 [tokens, stride], in place; columns from `vocabulary` on are padding: they count for nothing and their
// gradient is 0. stride a multiple of 8. targets u32 [tokens], losses f32 [tokens] (not scaled).
// A block takes a row. Shared memory: 65 floats.
extern "C" __global__ void __launch_bounds__(512)
    cross_entropy(bf16* __restrict__ logits, const unsigned* __restrict__ targets, float* __restrict__ losses,
                  float scale, float z_loss, int vocabulary, int stride) {
  float* shared = dynamic_shared<float>();
  const long long token = blockIdx.x;
  const unsigned target = targets[token];
  bf16* row = logits + token * stride;
  if (target == 0xFFFFFFFFu) {
    const float zeros[8] = {};
    for (int at = threadIdx.x * 8; at < stride; at += blockDim.x * 8) store8(row + at, zeros);
    if (threadIdx.x == 0) losses[token] = 0.0f;
    return;
  }
  Exponentials mine = {LOWEST, 0.0f};
  for (int at = threadIdx.x * 8; at < vocabulary; at += blockDim.x * 8) {
    float values[8];
    load8(values, row + at);
    float max = mine.max;
    UNROLL
    for (int i = 0; i < 8; ++i) {
      values[i] = at + i < vocabulary ? values[i] * LOG2_E : LOWEST;
      max = fmaxf(max, values[i]);
    }
    float sum = mine.sum * fast_exp2(mine.max - max);
    UNROLL
    for (int i = 0; i < 8; ++i) sum += at + i < vocabulary ? fast_exp2(values[i] - max) : 0.0f;
    mine = {max, sum};
  }
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  mine = warp_joined(mine);
  if (lane == 0) {
    shared[threadIdx.x / WARP] = mine.max;
    shared[WARP + threadIdx.x / WARP] = mine.sum;
  }
  // Before the barrier: after it another thread overwrites this logit.
  if (threadIdx.x == 0) {
    shared[2 * WARP] = target < static_cast<unsigned>(vocabulary) ? __bfloat162float(row[target]) : NAN;
  }
  __syncthreads();
  Exponentials all = {LOWEST, 0.0f};
  if (lane < warps) all = {shared[lane], shared[WARP + lane]};
  all = warp_joined(all);
  const float log2_sum = all.max + log2f(all.sum), log_sum = log2_sum * LN_2;
  if (threadIdx.x == 0) losses[token] = log_sum - shared[2 * WARP];
  const float factor = scale * (1.0f + 2.0f * z_loss * log_sum);
  for (int at = threadIdx.x * 8; at < stride; at += blockDim.x * 8) {
    float values[8];
    load8(values, row + at);
    UNROLL
    for (int i = 0; i < 8; ++i) {
      const float p = fast_exp2(values[i] * LOG2_E - log2_sum);
      const float grad = factor * p - (static_cast<unsigned>(at + i) == target ? scale : 0.0f);
      values[i] = at + i < vocabulary ? grad : 0.0f;
    }
    store8(row + at, values);
  }
}

// total += Σ losses, in a fixed order and in f64.
//
// total f64 [1], losses f32 [tokens]. One block of 1,024. Shared memory: 32 doubles.
extern "C" __global__ void __launch_bounds__(1024)
    reduce_losses(double* __restrict__ total, const float* __restrict__ losses, int tokens) {
  double* shared = dynamic_shared<double>();
  double sum = 0.0;
  for (int token = threadIdx.x; token < tokens; token += blockDim.x) sum += losses[token];
  UNROLL
  for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < static_cast<int>(blockDim.x / WARP); ++warp) sum += shared[warp];
    *total += sum;
  }
}

EMULATED(cross_entropy, reduce_losses)
