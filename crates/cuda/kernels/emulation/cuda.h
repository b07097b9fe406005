// CUDA C++ as far as the kernels use it, for a host compiler: what device.cuh takes from nvcc's headers and from PTX.
//
// A thread of a block is a fiber, so a block is one thread of the host and a kernel costs no locks. The instructions of
// a warp (shuffles, ldmatrix, mma) wait until all 32 lanes are there. Copies made asynchronously arrive when they are
// waited for and not before. `block.h` has the machinery, `program.h` how a test launches a kernel.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "program.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define UNROLL
#define UNROLL_4
#define EMULATED(...)                     \
  static const emulation::Kernels kernels \
  __attribute__((used)) = emulation::Kernels(#__VA_ARGS__).with(__VA_ARGS__);

#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block_index())
#define blockDim (emulation::block_size())
#define gridDim (emulation::grid_size())

using std::max;
using std::min;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline float __uint_as_float(unsigned word) {
  float x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

inline unsigned __float_as_uint(float x) {
  unsigned word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned{x.bits} << 16); }

// To nearest, ties to even; not a number stays so.
inline unsigned bf16_bits(float x) {
  const unsigned word = __float_as_uint(x);
  if ((word & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFFu;
  return (word + 0x7FFFu + (word >> 16 & 1u)) >> 16;
}

inline int not_hoisted(int x) { return x; }

inline unsigned pack2(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }

inline float fast_exp2(float x) {
  const float y = exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }

template <class T>
inline T* dynamic_shared() {
  return static_cast<T*>(emulation::shared_memory());
}

inline void __syncthreads(emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) { emulation::block_barrier(site); }
inline void __syncwarp(emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) { emulation::warp_barrier(site); }

// The value of the lane whose number differs by the bits of `mask`.
template <class T>
inline T __shfl_xor_sync(unsigned lanes, T value, int mask,
                         emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  word = emulation::shuffle_xor(lanes, word, mask, site);
  std::memcpy(&value, &word, sizeof value);
  return value;
}

inline void copy_async_16(void* shared, const void* source, bool valid) {
  emulation::copy_async(shared, source, 16, valid);
}
inline void copy_async_4(void* shared, const void* source, bool valid) {
  emulation::copy_async(shared, source, 4, valid);
}
inline void copy_async_wait() { emulation::copy_async_wait(); }

inline void load_matrices(unsigned (&words)[4], const void* row,
                          emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  emulation::load_matrices(words, row, false, site);
}
inline void load_matrices_transposed(unsigned (&words)[4], const void* row,
                                     emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  emulation::load_matrices(words, row, true, site);
}
inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                         emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  emulation::multiply_add(c, a, b0, b1, site);
}
