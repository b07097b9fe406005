// What the kernels share: bf16 in packs of 16 bytes, sums over warps and blocks, and the instructions that C++ does
// not name. Each of those is one small function here whose host twin lies in emulation/cuda.h, so that the very same
// kernels compile as host C++.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#define UNROLL _Pragma("unroll")
#define UNROLL_4 _Pragma("unroll 4")
#define EMULATED(...)

// The block's shared memory. All of it is dynamic: the launch says its size, and the emulation knows its bounds.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char candlewick_shared[];
  return reinterpret_cast<T*>(candlewick_shared);
}

// x, which the compiler has to take for another value each time: what is made of it is made again in every turn of a loop
// and does not take registers from one to the next.
__device__ __forceinline__ int not_hoisted(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Two values rounded to nearest even, `low` in the lower half of the word.
__device__ __forceinline__ unsigned pack2(float low, float high) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// 2ˣ and eˣ within 2 units in the last place, results below the normal range flushed to zero.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory without waiting; zeros instead of `source` where not `valid`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source),
               "r"(valid ? 16 : 0)
               : "memory");
}

// The same for 4 bytes.
__device__ __forceinline__ void copy_async_4(void* shared, const void* source, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(source),
               "r"(valid ? 4 : 0)
               : "memory");
}

// Waits for the copies that this thread began. Others see them after the next barrier.
__device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8 × 8 matrices of bf16: lane l names row l % 8 of matrix l / 8 and gets, of matrix i, the two values at row
// l / 4 and column 2 · (l % 4) in word i.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same with each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a · b for a 16 × 16, b 16 × 8, c 16 × 8 spread over the warp as PTX's mma.m16n8k16 has it.
__device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#include "emulation/cuda.h"
#endif

using bf16 = __nv_bfloat16;

constexpr int WARP = 32;
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.693147180559945309f;

__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * LOG2_E); }

// The thread's number in the whole grid.
__device__ __forceinline__ long long global_thread() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ float low_half(unsigned word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }

// Eight values as f32, from 16 bytes of bf16.
__device__ __forceinline__ void unpack8(float (&values)[8], uint4 pack) {
  values[0] = low_half(pack.x), values[1] = high_half(pack.x);
  values[2] = low_half(pack.y), values[3] = high_half(pack.y);
  values[4] = low_half(pack.z), values[5] = high_half(pack.z);
  values[6] = low_half(pack.w), values[7] = high_half(pack.w);
}

__device__ __forceinline__ uint4 pack8(const float (&values)[8]) {
  return make_uint4(pack2(values[0], values[1]), pack2(values[2], values[3]), pack2(values[4], values[5]),
                    pack2(values[6], values[7]));
}

__device__ __forceinline__ void load8(float (&values)[8], const bf16* from) {
  unpack8(values, *reinterpret_cast<const uint4*>(from));
}

__device__ __forceinline__ void load8(float (&values)[8], const float* from) {
  const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

__device__ __forceinline__ void store8(bf16* to, const float (&values)[8]) {
  *reinterpret_cast<uint4*>(to) = pack8(values);
}

__device__ __forceinline__ void store8(float* to, const float (&values)[8]) {
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
  *reinterpret_cast<float4*>(to + 4) = make_float4(values[4], values[5], values[6], values[7]);
}

// Σ x over `lanes` neighbouring lanes (a power of two), the same in each of them.
__device__ __forceinline__ float lanes_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
  UNROLL
  for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

// Σ x over the block, in a fixed order and the same in every thread. `scratch` holds one value a warp; the next call
// must use another, or come after another barrier.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  x = warp_sum(x);
  if (lane == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}
