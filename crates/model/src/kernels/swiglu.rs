//! The gated activation of Shazeer 2020 with SiLU.

use super::vector::{sigmoid, vectorized};
use rayon::prelude::*;

const TASK: usize = 8_192;

/// y = silu(g) · u, silu(g) = g · σ(g). All of equal length.
pub fn swiglu_forward(output: &mut [f32], gate: &[f32], up: &[f32]) {
    assert!(output.len() == gate.len() && gate.len() == up.len());
    output.par_chunks_mut(TASK).zip(gate.par_chunks(TASK)).zip(up.par_chunks(TASK)).for_each(
        |((output, gate), up)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((y, &g), &u) in output.iter_mut().zip(gate).zip(up) {
                        *y = g * sigmoid(g) * u;
                    }
                },
            )
        },
    );
}

/// dg = dy · u · σ(g) · (1 + g · (1 − σ(g))), du = dy · silu(g).
pub fn swiglu_backward(
    gate_grad: &mut [f32],
    up_grad: &mut [f32],
    output_grad: &[f32],
    gate: &[f32],
    up: &[f32],
) {
    let n = gate.len();
    assert!(gate_grad.len() == n && up_grad.len() == n && output_grad.len() == n && up.len() == n);
    gate_grad
        .par_chunks_mut(TASK)
        .zip(up_grad.par_chunks_mut(TASK))
        .zip(output_grad.par_chunks(TASK))
        .zip(gate.par_chunks(TASK))
        .zip(up.par_chunks(TASK))
        .for_each(|((((gate_grad, up_grad), output_grad), gate), up)| {
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..gate.len() {
                        let (g, dy) = (gate[i], output_grad[i]);
                        let s = sigmoid(g);
                        gate_grad[i] = dy * up[i] * s * (1.0 + g * (1.0 - s));
                        up_grad[i] = dy * g * s;
                    }
                },
            )
        });
}
