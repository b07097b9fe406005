// Causal grouped-query attention that never holds the scores (Dao 2023, FlashAttention-2).
#include "tiles.cuh"

// O = softmax(Q·Kᵀ·scale + mask)·V, the mask hiding later tokens; L = ln Σ exp of each row's scores.
//
// A block has a tile of queries of one head and goes over the tiles of keys up to the diagonal. It keeps each row's
// maximum and sum, and rescales what it has when the maximum grows. The copy of V's tile runs during Q·Kᵀ, that of the
// next tile of K during the softmax and P·V.
//
// out bf16 [B·T, H·D], lse f32 [B, H, T], qk bf16 [B·T, (H + G)·D] (queries, keys), qkv bf16 [B·T, (H + 2G)·D] (its
// last part are the values). Query head h attends to key head h·G/H. Grid [B·H, ⌈T / rows⌉], longest rows first.
// Shared memory: (rows + 2 · N) · D bf16.
template <int D, int M, int N, int WARPS>
__device__ __forceinline__ void attention(bf16* out, float* lse, const bf16* qk, const bf16* qkv, int length,
                                          int heads, int key_value_heads, float scale) {
  constexpr int ROWS = WARPS * M * 16, THREADS = WARPS * WARP;
  bf16* q_tile = dynamic_shared<bf16>();
  bf16* k_tile = q_tile + ROWS * D;
  bf16* v_tile = k_tile + N * D;
  const int head = blockIdx.x % heads, group = head / (heads / key_value_heads);
  const long long first_token = static_cast<long long>(blockIdx.x / heads) * length;
  const int first = (gridDim.y - 1 - blockIdx.y) * ROWS;
  const int qk_stride = (heads + key_value_heads) * D, qkv_stride = qk_stride + key_value_heads * D;
  const bf16* q = qk + first_token * qk_stride + head * D;
  const bf16* k = qk + first_token * qk_stride + (heads + group) * D;
  const bf16* v = qkv + first_token * qkv_stride + (heads + key_value_heads + group) * D;
  load_tile<D, ROWS, THREADS>(q_tile, q, first, length, qk_stride);
  load_tile<D, N, THREADS>(k_tile, k, 0, length, qk_stride);

  const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * M * 16;
  const int warp_first = first + warp_row;
  const float scale_log2 = scale * LOG2_E;
  float o[M][D / 8][4] = {}, max[M][2], sum[M][2] = {};
  UNROLL
  for (int m = 0; m < M; ++m) max[m][0] = max[m][1] = -INFINITY;

  const int end = min(first + ROWS, length);
  for (int key = 0; key < end; key += N) {
    copy_async_wait();
    // K has arrived, and no warp reads the last V any more.
    __syncthreads();
    load_tile<D, N, THREADS>(v_tile, v, key, length, qkv_stride);
    float s[M][N / 8][4] = {};
    // A tile that lies behind all rows of this warp does not concern it.
    const bool seen = key < warp_first + M * 16;
    if (seen) multiply_transposed<D, M, N>(s, q_tile, warp_row, k_tile);
    copy_async_wait();
    // V has arrived, and no warp reads K any more.
    __syncthreads();
    if (key + N < end) load_tile<D, N, THREADS>(k_tile, k, key + N, length, qk_stride);
    if (!seen) continue;
    if (key + N > warp_first + 1) hide_later_keys<M, N, false>(s, warp_first, key);
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int half = 0; half < 2; ++half) {
        float row_max = max[m][half];
        UNROLL
        for (int n = 0; n < N / 8; ++n) {
          UNROLL
          for (int i = 0; i < 2; ++i) row_max = fmaxf(row_max, s[m][n][half * 2 + i]);
        }
        row_max = fmaxf(row_max, __shfl_xor_sync(0xFFFFFFFFu, row_max, 1));
        row_max = fmaxf(row_max, __shfl_xor_sync(0xFFFFFFFFu, row_max, 2));
        // The first tile has a key for every row, so the maximum is a number from here on.
        const float shift = row_max * scale_log2;
        const float shrink = fast_exp2(max[m][half] * scale_log2 - shift);
        float row_sum = sum[m][half] * shrink;
        UNROLL
        for (int n = 0; n < N / 8; ++n) {
          UNROLL
          for (int i = 0; i < 2; ++i) {
            float& score = s[m][n][half * 2 + i];
            score = fast_exp2(score * scale_log2 - shift);
            row_sum += score;
          }
        }
        max[m][half] = row_max;
        sum[m][half] = row_sum;
        UNROLL
        for (int d = 0; d < D / 8; ++d) o[m][d][half * 2] *= shrink, o[m][d][half * 2 + 1] *= shrink;
      }
    }
    multiply_accumulators<D, M, N>(o, s, v_tile);
  }

  float inverse[M][2];
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int half = 0; half < 2; ++half) {
      const float total = lanes_sum(sum[m][half], 4);
      inverse[m][half] = 1.0f / total;
      const int row = warp_first + m * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && row < length) {
        lse[static_cast<long long>(blockIdx.x) * length + row] = max[m][half] * scale + log2f(total) * LN_2;
      }
    }
  }
  store_rows<D, M>(out + first_token * heads * D + head * D, o, inverse, q_tile, warp_row, first, length, heads * D);
}

// Tiles of 128 queries and 64 keys.
extern "C" __global__ void __launch_bounds__(128)
    attention_forward_64(bf16* __restrict__ out, float* __restrict__ lse, const bf16* __restrict__ qk,
                         const bf16* __restrict__ qkv, int length, int heads, int key_value_heads, float scale) {
  attention<64, 2, 64, 4>(out, lse, qk, qkv, length, heads, key_value_heads, scale);
}

// Tiles of 128 queries and 48 keys: with 64 the registers do not hold the scores beside the output.
extern "C" __global__ void __launch_bounds__(128)
    attention_forward_128(bf16* __restrict__ out, float* __restrict__ lse, const bf16* __restrict__ qk,
                          const bf16* __restrict__ qkv, int length, int heads, int key_value_heads, float scale) {
  attention<128, 2, 48, 4>(out, lse, qk, qkv, length, heads, key_value_heads, scale);
}

EMULATED(attention_forward_64, attention_forward_128)
