// The norm of the gradient and AdamW over flat buffers. The host reads nothing between them: the norm, the factor of
// clipping and whether the step counts stay on the device.
#include "device.cuh"

// What finish_norm writes and adamw reads.
struct Norm {
  float norm;    // ‖g‖₂
  float clip;    // min(1, limit / (norm + 1e-6))
  float finite;  // 1, or 0 when the gradient or the loss is not finite: the update is skipped
};

// partials[p] = Σ g² over the part of block p.
//
// g f32 [n], n a multiple of 4; partials f32 [gridDim.x]. Shared memory: 32 floats.
extern "C" __global__ void __launch_bounds__(512)
    sum_of_squares(float* __restrict__ partials, const float* __restrict__ g, long long n) {
  float sum = 0.0f;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x * 4;
  for (long long at = global_thread() * 4; at < n; at += step) {
    const float4 v = *reinterpret_cast<const float4*>(g + at);
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  sum = block_sum(sum, dynamic_shared<float>());
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// norm = √(Σ partials), clip = min(1, limit / (norm + 1e-6)); finite = 0 where the sum or the loss is not finite.
//
// scalars f32 [3] as Norm; partials f32 [count]; loss f64 [1] or null; a limit of 0 or less does not clip.
// One block of 1,024; the partial sums are added in f64 and a fixed order. Shared memory: 32 doubles.
extern "C" __global__ void __launch_bounds__(1024)
    finish_norm(float* __restrict__ scalars, const float* __restrict__ partials, const double* __restrict__ loss,
                float limit, int count) {
  double* shared = dynamic_shared<double>();
  double sum = 0.0;
  for (int at = threadIdx.x; at < count; at += blockDim.x) sum += partials[at];
  UNROLL
  for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < static_cast<int>(blockDim.x / WARP); ++warp) sum += shared[warp];
    const float norm = static_cast<float>(sqrt(sum));
    const bool finite = isfinite(norm) && (loss == nullptr || isfinite(*loss));
    Norm* out = reinterpret_cast<Norm*>(scalars);
    out->norm = norm;
    out->clip = limit > 0.0f ? fminf(1.0f, limit / (norm + 1e-6f)) : 1.0f;
    out->finite = finite ? 1.0f : 0.0f;
  }
}

// 64 random bits of a counter: the finaliser of MurmurHash3, with Weyl steps between its inputs.
__device__ __forceinline__ unsigned long long random_bits(unsigned long long seed, unsigned long long step,
                                                          unsigned long long index) {
  unsigned long long x = seed + step * 0x9E3779B97F4A7C15ull + index * 0xD1B54A32D192ED03ull;
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCDull;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53ull;
  return x ^ (x >> 33);
}

// The upper half of the word of x after adding 16 random bits below it: rounds up with the probability of the part
// that is cut off, so that small updates are not lost on average. x finite.
__device__ __forceinline__ unsigned stochastic_half(float x, unsigned long long random) {
  return (__float_as_uint(x) + static_cast<unsigned>(random & 0xFFFFu)) >> 16;
}

// Eight values rounded stochastically by the 16 bits of each random number from bit `shift` on.
__device__ __forceinline__ uint4 stochastic_pack8(const float (&values)[8], const unsigned long long (&random)[8],
                                                  int shift) {
  unsigned words[4];
  UNROLL
  for (int i = 0; i < 4; ++i) {
    words[i] = stochastic_half(values[2 * i], random[2 * i] >> shift) |
               stochastic_half(values[2 * i + 1], random[2 * i + 1] >> shift) << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The constants of an update, the same for both kinds of moments.
struct Update {
  float lr;             // learning rate of this step
  float keep;           // 1 − lr · decay
  float beta1, beta2;   // decay of the moments
  float correct1;       // 1 / (1 − β₁ᵗ)
  float correct2;       // 1 / (1 − β₂ᵗ)
  float eps;
};

__device__ __forceinline__ void update8(float (&w)[8], float (&m)[8], float (&v)[8], const float (&g)[8], float clip,
                                        const Update& update) {
  UNROLL
  for (int i = 0; i < 8; ++i) {
    const float grad = g[i] * clip;
    m[i] = update.beta1 * m[i] + (1.0f - update.beta1) * grad;
    v[i] = update.beta2 * v[i] + (1.0f - update.beta2) * grad * grad;
    w[i] = w[i] * update.keep -
           update.lr * (m[i] * update.correct1) / (sqrtf(v[i] * update.correct2) + update.eps);
  }
}

// g ← g · clip; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w·(1 − lr·λ) − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε).
// Loshchilov, Hutter 2019.
//
// Nothing is written where scalars (of finish_norm) says that the gradient is not finite. The compute weights are the
// master weights rounded to bf16: to nearest, or stochastically by bits that are a pure function of (seed, step,
// first + index), so that a run that goes on repeats them. `M` is the type of the moments; those in bf16 are rounded
// stochastically always, for (1−β₂)g² is mostly below half a unit of v.
template <class M>
__device__ __forceinline__ void adamw_update(float* master, bf16* weights, M* first_moment, M* second_moment,
                                             const float* g, const float* scalars, const Update& update,
                                             int stochastic, unsigned long long seed, unsigned long long step,
                                             long long first, long long n) {
  const Norm norm = *reinterpret_cast<const Norm*>(scalars);
  const long long at = global_thread() * 8;
  if (at >= n || norm.finite == 0.0f) return;
  constexpr bool packed_moments = sizeof(M) == 2;
  float w[8], m[8], v[8], grad[8];
  load8(w, master + at);
  load8(m, first_moment + at);
  load8(v, second_moment + at);
  load8(grad, g + at);
  update8(w, m, v, grad, norm.clip, update);
  store8(master + at, w);
  unsigned long long random[8] = {};
  if (stochastic || packed_moments) {
    UNROLL
    for (int i = 0; i < 8; ++i) random[i] = random_bits(seed, step, static_cast<unsigned long long>(first + at + i));
  }
  *reinterpret_cast<uint4*>(weights + at) = stochastic ? stochastic_pack8(w, random, 0) : pack8(w);
  if constexpr (packed_moments) {
    // Other bits than the weights'.
    *reinterpret_cast<uint4*>(first_moment + at) = stochastic_pack8(m, random, 16);
    *reinterpret_cast<uint4*>(second_moment + at) = stochastic_pack8(v, random, 32);
  } else {
    store8(first_moment + at, m);
    store8(second_moment + at, v);
  }
}

// Moments in f32. master, m, v, g f32 [n], weights bf16 [n], n a multiple of 8; scalars f32 [3].
extern "C" __global__ void __launch_bounds__(256)
    adamw(float* __restrict__ master, bf16* __restrict__ weights, float* __restrict__ m, float* __restrict__ v,
          const float* __restrict__ g, const float* __restrict__ scalars, float lr, float keep, float beta1,
          float beta2, float correct1, float correct2, float eps, int stochastic, unsigned long long seed,
          unsigned long long step, long long first, long long n) {
  const Update update = {lr, keep, beta1, beta2, correct1, correct2, eps};
  adamw_update(master, weights, m, v, g, scalars, update, stochastic, seed, step, first, n);
}

// Moments in bf16, otherwise the same.
extern "C" __global__ void __launch_bounds__(256)
    adamw_bf16_moments(float* __restrict__ master, bf16* __restrict__ weights, bf16* __restrict__ m,
                       bf16* __restrict__ v, const float* __restrict__ g, const float* __restrict__ scalars, float lr,
                       float keep, float beta1, float beta2, float correct1, float correct2, float eps,
                       int stochastic, unsigned long long seed, unsigned long long step, long long first,
                       long long n) {
  const Update update = {lr, keep, beta1, beta2, correct1, correct2, eps};
  adamw_update(master, weights, m, v, g, scalars, update, stochastic, seed, step, first, n);
}

// out[i] = x[i] rounded to nearest: the compute weights of master weights that were loaded. n a multiple of 8.
extern "C" __global__ void __launch_bounds__(256)
    round_to_bf16(bf16* __restrict__ out, const float* __restrict__ x, long long n) {
  const long long at = global_thread() * 8;
  if (at >= n) return;
  float values[8];
  load8(values, x + at);
  store8(out + at, values);
}

EMULATED(sum_of_squares, finish_norm, adamw, adamw_bf16_moments, round_to_bf16)
