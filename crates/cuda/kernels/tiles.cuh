// Tiles of bf16 in shared memory and their products on the tensor cores.
//
// A tile is [rows][D] without gaps, D 64 or 128. The chunks of 16 bytes of a row are permuted by the row's number, so
// that the eight rows that ldmatrix reads at once lie in different banks.
//
// A warp has M · 16 rows of the left matrix. In accumulators acc[m][n][4] the lane l has, of the 16 × 8 block (m, n),
// row l / 4 (values 0, 1) and row l / 4 + 8 (values 2, 3), at columns 2 · (l % 4) and the one after.
#pragma once
#include "device.cuh"

// Where chunk `chunk` (eight values) of row `row` lies in a tile.
template <int D>
__device__ __forceinline__ int tile_at(int row, int chunk) {
  return row * D + (chunk ^ (row & 7)) * 8;
}

// Begins the copy of rows [first, first + ROWS) of a matrix, `stride` values between its rows, into a tile; rows from
// `length` on become zeros.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* matrix, int first, int length, int stride) {
  // A thread has the same chunk of every STEP-th row, which is at the same place of its eight rows.
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
  static_assert(STEP % 8 == 0 && ROWS % STEP == 0);
  const int thread = not_hoisted(threadIdx.x), row = thread / CHUNKS, chunk = thread % CHUNKS;
  const bf16* source = matrix + static_cast<long long>(first + row) * stride + chunk * 8;
  tile += tile_at<D>(row, chunk);
  UNROLL_4
  for (int i = 0; i < ROWS / STEP; ++i) {
    const bool valid = first + row + i * STEP < length;
    copy_async_16(tile + i * STEP * D, valid ? source + i * STEP * stride : matrix, valid);
  }
}

// Makes scores −∞ that no query may see. `row` and `column` are those of the first of the M · 16 × N scores; the
// columns are keys, or where `TRANSPOSED` the rows are.
template <int M, int N, bool TRANSPOSED>
__device__ __forceinline__ void hide_later_keys(float (&scores)[M][N / 8][4], int row, int column) {
  const int lane = threadIdx.x % WARP;
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int n = 0; n < N / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const int r = row + m * 16 + i / 2 * 8 + lane / 4, c = column + n * 8 + lane % 4 * 2 + i % 2;
        if (TRANSPOSED ? r > c : c > r) scores[m][n][i] = -INFINITY;
      }
    }
  }
}

// acc[m][n] += A · Bᵀ over D, for M · 16 rows of tile A from `row` on and all N rows of tile B.
template <int D, int M, int N>
__device__ __forceinline__ void multiply_transposed(float (&acc)[M][N / 8][4], const bf16* a_tile, int row,
                                                    const bf16* b_tile) {
  // The block at column 16 · k lies where the first does but for 16 · k exclusive-ored in, and the one 16 rows further
  // on 16 · D further on: two addresses are enough for all of them.
  const int lane = threadIdx.x % WARP;
  const int a_at = not_hoisted(tile_at<D>(row + lane % 16, lane / 16));
  const int b_at = not_hoisted(tile_at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2));
  UNROLL
  for (int k = 0; k < D / 16; ++k) {
    unsigned a[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) load_matrices(a[m], a_tile + (a_at ^ k * 16) + m * 16 * D);
    UNROLL
    for (int n = 0; n < N / 16; ++n) {
      unsigned b[4];
      load_matrices(b, b_tile + (b_at ^ k * 16) + n * 16 * D);
      UNROLL
      for (int m = 0; m < M; ++m) {
        multiply_add(acc[m][2 * n], a[m], b[0], b[1]);
        multiply_add(acc[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// acc[m][d] += P · B for the M · 16 × N block P, in accumulators and rounded to bf16 here, and tile B of N rows.
// Two accumulators side by side are laid out as a left operand is: P does not go through shared memory.
template <int D, int M, int N>
__device__ __forceinline__ void multiply_accumulators(float (&acc)[M][D / 8][4], const float (&p)[M][N / 8][4],
                                                      const bf16* b_tile) {
  const int lane = threadIdx.x % WARP;
  const int b_at = not_hoisted(tile_at<D>(lane % 16, lane / 16));
  UNROLL
  for (int k = 0; k < N / 16; ++k) {
    unsigned a[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) {
      a[m][0] = pack2(p[m][2 * k][0], p[m][2 * k][1]);
      a[m][1] = pack2(p[m][2 * k][2], p[m][2 * k][3]);
      a[m][2] = pack2(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
      a[m][3] = pack2(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
    }
    UNROLL
    for (int d = 0; d < D / 16; ++d) {
      unsigned b[4];
      load_matrices_transposed(b, b_tile + (b_at ^ d * 16) + k * 16 * D);
      UNROLL
      for (int m = 0; m < M; ++m) {
        multiply_add(acc[m][2 * d], a[m], b[0], b[1]);
        multiply_add(acc[m][2 * d + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// Writes a warp's accumulators times `factor[m][half of the rows]` as rows [first + row, …) of a matrix, those below
// `length`. They go through the warp's own rows of `tile`, to be written in 16 bytes.
//
// `tile` may be one that the warp had as the left operand and no other warp had: a left operand is spread over the lanes
// as accumulators are, so that each lane overwrites what it alone has read.
template <int D, int M>
__device__ __forceinline__ void store_rows(bf16* matrix, const float (&acc)[M][D / 8][4], const float (&factor)[M][2],
                                           bf16* tile, int row, int first, int length, int stride) {
  constexpr int CHUNKS = D / 8;
  const int lane = threadIdx.x % WARP;
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int d = 0; d < CHUNKS; ++d) {
      UNROLL
      for (int half = 0; half < 2; ++half) {
        const int at = tile_at<D>(row + m * 16 + half * 8 + lane / 4, d) + lane % 4 * 2;
        *reinterpret_cast<unsigned*>(tile + at) =
            pack2(acc[m][d][half * 2] * factor[m][half], acc[m][d][half * 2 + 1] * factor[m][half]);
      }
    }
  }
  __syncwarp();
  UNROLL
  for (int i = 0; i < M * 16 * CHUNKS / WARP; ++i) {
    const int at = i * WARP + lane, inner = row + at / CHUNKS, chunk = at % CHUNKS;
    if (first + inner < length) {
      *reinterpret_cast<uint4*>(matrix + static_cast<long long>(first + inner) * stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(tile + tile_at<D>(inner, chunk));
    }
  }
}
