// The gated activation of Shazeer 2020 with SiLU, on the packed projection [gate, up].
#include "device.cuh"

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + fast_exp(-x)); }

// h = silu(g) · u, silu(g) = g · σ(g).
//
// h bf16 [tokens, inner], gate_up bf16 [tokens, 2·inner]: the gate, then what it gates. inner a multiple of 8.
// A thread makes eight values.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_forward(bf16* __restrict__ h, const bf16* __restrict__ gate_up, int tokens, int inner) {
  const int packs = inner / 8;
  const long long at = global_thread(), token = at / packs;
  if (token >= tokens) return;
  const long long from = token * 2 * inner + (at - token * packs) * 8;
  float gate[8], up[8];
  load8(gate, gate_up + from);
  load8(up, gate_up + from + inner);
  UNROLL
  for (int i = 0; i < 8; ++i) up[i] *= gate[i] * sigmoid(gate[i]);
  store8(h + at * 8, up);
}

// dg = dh · u · σ(g) · (1 + g · (1 − σ(g))), du = dh · silu(g).
//
// dgate_up, gate_up bf16 [tokens, 2·inner], which may be the same memory; dh bf16 [tokens, inner]. h (or null) gets
// the product again, for the gradient of the matrix after it; it may be dh.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(bf16* dgate_up, bf16* h, const bf16* dh, const bf16* gate_up, int tokens, int inner) {
  const int packs = inner / 8;
  const long long at = global_thread(), token = at / packs;
  if (token >= tokens) return;
  const long long from = token * 2 * inner + (at - token * packs) * 8;
  float gate[8], up[8], grad[8];
  load8(gate, gate_up + from);
  load8(up, gate_up + from + inner);
  load8(grad, dh + at * 8);
  UNROLL
  for (int i = 0; i < 8; ++i) {
    const float g = gate[i], s = sigmoid(g);
    gate[i] = grad[i] * up[i] * s * (1.0f + g * (1.0f - s));
    // What was read is done with: grad becomes du and up becomes h.
    grad[i] *= g * s;
    up[i] *= g * s;
  }
  store8(dgate_up + from, gate);
  store8(dgate_up + from + inner, grad);
  if (h != nullptr) store8(h + at * 8, up);
}

EMULATED(swiglu_forward, swiglu_backward)
