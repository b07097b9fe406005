// The gradient of causal grouped-query attention, from the rows' logarithms of sums that the forward pass kept.
//
// P = exp(Q·Kᵀ·scale − L), δ = Σ dO·O a row, dP = dO·Vᵀ, dS = P ∘ (dP − δ):
// dV = Pᵀ·dO, dK = scale · dSᵀ·Q, dQ = scale · dS·K (Dao 2023).
//
// Two kernels, one for a tile of keys and one for a tile of queries, make S and dP twice instead of adding dQ
// atomically: every sum has one owner and one order, so that results repeat bitwise.
#include "tiles.cuh"

// δ[b, h, t] = Σ dO·O over the values of a head.
//
// delta f32 [B, H, T]; dout, out bf16 [B·T, H·D]. D / 8 neighbouring lanes take a head of a token; D 64 or 128.
extern "C" __global__ void __launch_bounds__(256)
    attention_delta(float* __restrict__ delta, const bf16* __restrict__ dout, const bf16* __restrict__ out,
                    int tokens, int length, int heads, int head_dim) {
  const int lanes = head_dim / 8;
  const long long at = global_thread(), task = at / lanes;
  float dot = 0.0f;
  if (task < static_cast<long long>(tokens) * heads) {
    float a[8], b[8];
    load8(a, dout + at * 8);
    load8(b, out + at * 8);
    UNROLL
    for (int i = 0; i < 8; ++i) dot += a[i] * b[i];
  }
  dot = lanes_sum(dot, lanes);
  if (task < static_cast<long long>(tokens) * heads && at % lanes == 0) {
    const long long token = task / heads, head = task % heads;
    delta[(token / length * heads + head) * length + token % length] = dot;
  }
}

// dK and dV of a tile of keys of one key head: over its query heads, and the tiles of queries from the diagonal on.
//
// The scores are made transposed, Sᵀ = K·Qᵀ, so that Pᵀ and dSᵀ are in registers as the next products need them. The
// copy of the next tile of Q, dO, L and δ runs during the products of this one.
//
// dqkv bf16 [B·T, (H + 2G)·D]: its keys' and values' parts are written. qk, qkv as forward; dout bf16 [B·T, H·D];
// lse, delta f32 [B, H, T]. Grid [B·G, ⌈T / keys⌉]. Shared memory: (2 · keys + 4 · N) · D bf16 and 4 · N floats.
template <int D, int M, int N, int WARPS>
__device__ __forceinline__ void backward_keys(bf16* dqkv, const bf16* qk, const bf16* qkv, const bf16* dout,
                                              const float* lse, const float* delta, int length, int heads,
                                              int key_value_heads, float scale) {
  constexpr int KEYS = WARPS * M * 16, THREADS = WARPS * WARP;
  bf16* k_tile = dynamic_shared<bf16>();
  bf16* v_tile = k_tile + KEYS * D;
  bf16* stages = v_tile + KEYS * D;  // twice Q and dO
  float* rows = reinterpret_cast<float*>(stages + 4 * N * D);  // twice L and δ
  const int ratio = heads / key_value_heads, group = blockIdx.x % key_value_heads;
  const int sequence = blockIdx.x / key_value_heads;
  const long long first_token = static_cast<long long>(sequence) * length;
  const int first = blockIdx.y * KEYS;
  const int qk_stride = (heads + key_value_heads) * D, qkv_stride = qk_stride + key_value_heads * D;
  const bf16* q = qk + first_token * qk_stride + group * ratio * D;
  const bf16* d_o = dout + first_token * heads * D + group * ratio * D;
  const long long first_row = (static_cast<long long>(sequence) * heads + group * ratio) * length;
  load_tile<D, KEYS, THREADS>(k_tile, qk + first_token * qk_stride + (heads + group) * D, first, length, qk_stride);
  load_tile<D, KEYS, THREADS>(v_tile, qkv + first_token * qkv_stride + (heads + key_value_heads + group) * D, first,
                              length, qkv_stride);

  const int begin = first / N * N;
  const auto load_stage = [&](int stage, int head, int query) {
    bf16* tiles = stages + stage * 2 * N * D;
    load_tile<D, N, THREADS>(tiles, q + head * D, query, length, qk_stride);
    load_tile<D, N, THREADS>(tiles + N * D, d_o + head * D, query, length, heads * D);
    for (int i = threadIdx.x; i < 2 * N; i += THREADS) {
      const int row = query + i % N;
      const long long at = first_row + static_cast<long long>(head) * length + (row < length ? row : 0);
      copy_async_4(rows + stage * 2 * N + i, (i < N ? lse : delta) + at, row < length);
    }
  };
  load_stage(0, 0, begin);

  const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * M * 16, warp_first = first + warp_row;
  const float scale_log2 = scale * LOG2_E;
  float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};
  int stage = 0;
  for (int head = 0, query = begin; head < ratio; stage ^= 1) {
    const int next_query = query + N < length ? query + N : begin;
    const int next_head = query + N < length ? head : head + 1;
    copy_async_wait();
    // This stage has arrived, and no warp reads the other one any more.
    __syncthreads();
    if (next_head < ratio) load_stage(stage ^ 1, next_head, next_query);
    // A tile of queries that all come before this warp's keys does not concern it.
    if (query + N > warp_first) {
      const bf16* q_tile = stages + stage * 2 * N * D;
      const bf16* do_tile = q_tile + N * D;
      const float* row_lse = rows + stage * 2 * N;
      float p[M][N / 8][4] = {}, ds[M][N / 8][4] = {};
      multiply_transposed<D, M, N>(p, k_tile, warp_row, q_tile);
      multiply_transposed<D, M, N>(ds, v_tile, warp_row, do_tile);
      if (query < warp_first + M * 16 - 1) hide_later_keys<M, N, true>(p, warp_first, query);
      UNROLL
      for (int n = 0; n < N / 8; ++n) {
        const int column = n * 8 + lane % 4 * 2;
        const float2 log_sum = *reinterpret_cast<const float2*>(row_lse + column);
        const float2 d = *reinterpret_cast<const float2*>(row_lse + N + column);
        UNROLL
        for (int m = 0; m < M; ++m) {
          UNROLL
          for (int i = 0; i < 4; ++i) {
            // Queries past the end are zeros, and so is their dO: they add nothing.
            p[m][n][i] = fast_exp2(p[m][n][i] * scale_log2 - (i % 2 ? log_sum.y : log_sum.x) * LOG2_E);
            ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 ? d.y : d.x));
          }
        }
      }
      multiply_accumulators<D, M, N>(dv, p, do_tile);
      multiply_accumulators<D, M, N>(dk, ds, q_tile);
    }
    query = next_query;
    head = next_head;
  }

  float ones[M][2], scales[M][2];
  UNROLL
  for (int m = 0; m < M; ++m) ones[m][0] = ones[m][1] = 1.0f, scales[m][0] = scales[m][1] = scale;
  bf16* out = dqkv + first_token * qkv_stride + (heads + group) * D;
  store_rows<D, M>(out, dk, scales, k_tile, warp_row, first, length, qkv_stride);
  store_rows<D, M>(out + key_value_heads * D, dv, ones, v_tile, warp_row, first, length, qkv_stride);
}

// dQ of a tile of queries of one head, over the tiles of keys up to the diagonal. The copy of the next tiles of K and
// V runs during the products of these.
//
// dqkv: its queries' part is written; the rest as in backward_keys. Grid [B·H, ⌈T / rows⌉], longest rows first.
// Shared memory: (2 · rows + 4 · N) · D bf16.
template <int D, int M, int N, int WARPS>
__device__ __forceinline__ void backward_queries(bf16* dqkv, const bf16* qk, const bf16* qkv, const bf16* dout,
                                                 const float* lse, const float* delta, int length, int heads,
                                                 int key_value_heads, float scale) {
  constexpr int ROWS = WARPS * M * 16, THREADS = WARPS * WARP;
  bf16* q_tile = dynamic_shared<bf16>();
  bf16* do_tile = q_tile + ROWS * D;
  bf16* stages = do_tile + ROWS * D;  // twice K and V
  const int head = blockIdx.x % heads, group = head / (heads / key_value_heads);
  const long long first_token = static_cast<long long>(blockIdx.x / heads) * length;
  const int first = (gridDim.y - 1 - blockIdx.y) * ROWS;
  const int qk_stride = (heads + key_value_heads) * D, qkv_stride = qk_stride + key_value_heads * D;
  const bf16* k = qk + first_token * qk_stride + (heads + group) * D;
  const bf16* v = qkv + first_token * qkv_stride + (heads + key_value_heads + group) * D;
  const auto load_stage = [&](int stage, int key) {
    load_tile<D, N, THREADS>(stages + stage * 2 * N * D, k, key, length, qk_stride);
    load_tile<D, N, THREADS>(stages + stage * 2 * N * D + N * D, v, key, length, qkv_stride);
  };
  load_tile<D, ROWS, THREADS>(q_tile, qk + first_token * qk_stride + head * D, first, length, qk_stride);
  load_tile<D, ROWS, THREADS>(do_tile, dout + first_token * heads * D + head * D, first, length, heads * D);
  load_stage(0, 0);

  const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * M * 16, warp_first = first + warp_row;
  const float scale_log2 = scale * LOG2_E;
  float log_sum[M][2], d[M][2], dq[M][D / 8][4] = {};
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = warp_first + m * 16 + half * 8 + lane / 4;
      const long long at = static_cast<long long>(blockIdx.x) * length + row;
      log_sum[m][half] = row < length ? lse[at] * LOG2_E : 0.0f;
      d[m][half] = row < length ? delta[at] : 0.0f;
    }
  }
  const int end = min(first + ROWS, length);
  int stage = 0;
  for (int key = 0; key < end; key += N, stage ^= 1) {
    copy_async_wait();
    // This stage has arrived, and no warp reads the other one any more.
    __syncthreads();
    if (key + N < end) load_stage(stage ^ 1, key + N);
    // A tile that lies behind all rows of this warp does not concern it.
    if (key >= warp_first + M * 16) continue;
    const bf16* k_tile = stages + stage * 2 * N * D;
    float s[M][N / 8][4] = {}, ds[M][N / 8][4] = {};
    multiply_transposed<D, M, N>(s, q_tile, warp_row, k_tile);
    multiply_transposed<D, M, N>(ds, do_tile, warp_row, k_tile + N * D);
    if (key + N > warp_first + 1) hide_later_keys<M, N, false>(s, warp_first, key);
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int n = 0; n < N / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
          const float p = fast_exp2(s[m][n][i] * scale_log2 - log_sum[m][i / 2]);
          ds[m][n][i] = p * (ds[m][n][i] - d[m][i / 2]);
        }
      }
    }
    multiply_accumulators<D, M, N>(dq, ds, k_tile);
  }
  float scales[M][2];
  UNROLL
  for (int m = 0; m < M; ++m) scales[m][0] = scales[m][1] = scale;
  store_rows<D, M>(dqkv + first_token * qkv_stride + head * D, dq, scales, q_tile, warp_row, first, length,
                   qkv_stride);
}

#define ATTENTION_BACKWARD(name, body)                                                                        \
  extern "C" __global__ void __launch_bounds__(128)                                                           \
      name(bf16* __restrict__ dqkv, const bf16* __restrict__ qk, const bf16* __restrict__ qkv,                \
           const bf16* __restrict__ dout, const float* __restrict__ lse, const float* __restrict__ delta,     \
           int length, int heads, int key_value_heads, float scale) {                                         \
    body(dqkv, qk, qkv, dout, lse, delta, length, heads, key_value_heads, scale);                             \
  }

#define BODY_KEYS_64 backward_keys<64, 1, 64, 4>
#define BODY_KEYS_128 backward_keys<128, 1, 64, 4>
#define BODY_QUERIES_64 backward_queries<64, 2, 64, 4>
#define BODY_QUERIES_128 backward_queries<128, 1, 64, 4>

ATTENTION_BACKWARD(attention_backward_keys_64, BODY_KEYS_64)
ATTENTION_BACKWARD(attention_backward_keys_128, BODY_KEYS_128)
ATTENTION_BACKWARD(attention_backward_queries_64, BODY_QUERIES_64)
ATTENTION_BACKWARD(attention_backward_queries_128, BODY_QUERIES_128)

EMULATED(attention_delta, attention_backward_keys_64, attention_backward_keys_128, attention_backward_queries_64,
         attention_backward_queries_128)
