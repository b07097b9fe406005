// Normalisation of queries and keys a head (Qwen3's QK-norm) and rotary position embedding (Su et al. 2021) in the
// rotate-half convention, in one pass over the packed projection.
//
// A warp takes a token, D / 16 neighbouring lanes a head of it at a time. A lane has the eight values from 8·p and
// their partners D / 2 further on; D is a power of two from 16 to 512.
#include "device.cuh"

// n = x · r · w with r = 1 / √(mean(x²) + ε) over a head, or n = x where the weights are null; then, for i < D / 2:
// y[i] = n[i]·cos − n[i + D/2]·sin, y[i + D/2] = n[i + D/2]·cos + n[i]·sin.
//
// qk bf16 [tokens, (H + G)·D]: queries, then keys. qkv bf16 [tokens, (H + 2G)·D]. wq, wk bf16 [D], both or neither.
// cos, sin f32 [≥ length, D / 2]; the position of token t is t mod length.
extern "C" __global__ void __launch_bounds__(256)
    qk_norm_rope_forward(bf16* __restrict__ qk, const bf16* __restrict__ qkv, const bf16* __restrict__ wq,
                         const bf16* __restrict__ wk, const float* __restrict__ cos, const float* __restrict__ sin,
                         int tokens, int length, int heads, int key_value_heads, int head_dim, float eps) {
  const int half = head_dim / 2, lanes = head_dim / 16, groups = WARP / lanes;
  const int lane = threadIdx.x % WARP, group = lane / lanes, column = lane % lanes * 8;
  const long long token = static_cast<long long>(blockIdx.x) * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (token >= tokens) return;
  const int both = heads + key_value_heads;
  const long long from = token * (both + key_value_heads) * head_dim, to = token * both * head_dim;
  float c[8], s[8];
  load8(c, cos + token % length * half + column);
  load8(s, sin + token % length * half + column);
  for (int first = 0; first < both; first += groups) {
    // Lanes without a head go along, for the sums take whole warps.
    const int head = first + group;
    float low[8] = {}, high[8] = {};
    if (head < both) {
      load8(low, qkv + from + head * head_dim + column);
      load8(high, qkv + from + head * head_dim + half + column);
    }
    if (wq != nullptr) {
      const bf16* w = head < heads ? wq : wk;
      float squares = 0.0f, weights[8];
      UNROLL
      for (int i = 0; i < 8; ++i) squares += low[i] * low[i] + high[i] * high[i];
      const float r = rsqrtf(lanes_sum(squares, lanes) / static_cast<float>(head_dim) + eps);
      load8(weights, w + column);
      UNROLL
      for (int i = 0; i < 8; ++i) low[i] *= r * weights[i];
      load8(weights, w + half + column);
      UNROLL
      for (int i = 0; i < 8; ++i) high[i] *= r * weights[i];
    }
    if (head < both) {
      float y[8];
      UNROLL
      for (int i = 0; i < 8; ++i) y[i] = low[i] * c[i] - high[i] * s[i];
      store8(qk + to + head * head_dim + column, y);
      UNROLL
      for (int i = 0; i < 8; ++i) y[i] = high[i] * c[i] + low[i] * s[i];
      store8(qk + to + head * head_dim + half + column, y);
    }
  }
}

// The inverse rotation of the gradient, dn, and then, with s = r² / D · Σ dn·w·x a head:
// dx = r · (dn·w − x·s), dw = Σ over tokens and heads of dn·x·r.
//
// dqkv bf16 [tokens, (H + 2G)·D]: its queries' and keys' parts hold dy and get dx; the values' part is not touched.
// dw_partial f32 [gridDim.x, 2·D]: a row a block, the queries' sums and then the keys'; reduce_partials adds them up.
// Null weights: only the rotation; dw_partial and qkv are not touched.
// Shared memory: 2·D floats a warp.
extern "C" __global__ void __launch_bounds__(256)
    qk_norm_rope_backward(bf16* __restrict__ dqkv, float* __restrict__ dw_partial, const bf16* __restrict__ qkv,
                          const bf16* __restrict__ wq, const bf16* __restrict__ wk, const float* __restrict__ cos,
                          const float* __restrict__ sin, int tokens, int length, int heads, int key_value_heads,
                          int head_dim, float eps) {
  const int half = head_dim / 2, lanes = head_dim / 16, groups = WARP / lanes;
  const int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  const int lane = threadIdx.x % WARP, group = lane / lanes, column = lane % lanes * 8;
  const int both = heads + key_value_heads;
  float sums[2][16] = {};
  for (int token = blockIdx.x * warps + warp; token < tokens; token += gridDim.x * warps) {
    const long long row = static_cast<long long>(token) * (both + key_value_heads) * head_dim;
    float c[8], s[8];
    load8(c, cos + static_cast<long long>(token % length) * half + column);
    load8(s, sin + static_cast<long long>(token % length) * half + column);
    for (int first = 0; first < both; first += groups) {
      const int head = first + group;
      const long long at = row + static_cast<long long>(head) * head_dim + column;
      float low[8] = {}, high[8] = {};
      if (head < both) {
        float a[8], b[8];
        load8(a, dqkv + at);
        load8(b, dqkv + at + half);
        UNROLL
        for (int i = 0; i < 8; ++i) {
          low[i] = a[i] * c[i] + b[i] * s[i];
          high[i] = b[i] * c[i] - a[i] * s[i];
        }
      }
      if (wq != nullptr) {
        float x_low[8] = {}, x_high[8] = {}, w_low[8], w_high[8];
        if (head < both) {
          load8(x_low, qkv + at);
          load8(x_high, qkv + at + half);
        }
        const bool query = head < heads;
        load8(w_low, (query ? wq : wk) + column);
        load8(w_high, (query ? wq : wk) + half + column);
        float squares = 0.0f, dot = 0.0f;
        UNROLL
        for (int i = 0; i < 8; ++i) {
          squares += x_low[i] * x_low[i] + x_high[i] * x_high[i];
          dot += low[i] * w_low[i] * x_low[i] + high[i] * w_high[i] * x_high[i];
        }
        const float r = rsqrtf(lanes_sum(squares, lanes) / static_cast<float>(head_dim) + eps);
        const float scaled = lanes_sum(dot, lanes) * r * r / static_cast<float>(head_dim);
        UNROLL
        for (int i = 0; i < 8; ++i) {
          const float d_low = low[i] * x_low[i] * r, d_high = high[i] * x_high[i] * r;
          sums[0][i] += query ? d_low : 0.0f;
          sums[0][8 + i] += query ? d_high : 0.0f;
          sums[1][i] += query ? 0.0f : d_low;
          sums[1][8 + i] += query ? 0.0f : d_high;
          low[i] = r * (low[i] * w_low[i] - x_low[i] * scaled);
          high[i] = r * (high[i] * w_high[i] - x_high[i] * scaled);
        }
      }
      if (head < both) {
        store8(dqkv + at, low);
        store8(dqkv + at + half, high);
      }
    }
  }
  if (wq == nullptr) return;
  // Over the warp's groups, which have the same columns; then over the warps.
  float* shared = dynamic_shared<float>();
  UNROLL
  for (int which = 0; which < 2; ++which) {
    UNROLL
    for (int i = 0; i < 16; ++i) {
      float sum = sums[which][i];
      for (int offset = lanes; offset < WARP; offset *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      const int at = which * head_dim + (i < 8 ? column + i : half + column + i - 8);
      if (group == 0) shared[warp * 2 * head_dim + at] = sum;
    }
  }
  __syncthreads();
  for (int at = threadIdx.x; at < 2 * head_dim; at += blockDim.x) {
    float sum = 0.0f;
    for (int other = 0; other < warps; ++other) sum += shared[other * 2 * head_dim + at];
    dw_partial[static_cast<long long>(blockIdx.x) * 2 * head_dim + at] = sum;
  }
}

EMULATED(qk_norm_rope_forward, qk_norm_rope_backward)
