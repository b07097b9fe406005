//! The gated activation of Shazeer 2020 with SiLU.

use super::vector::{sigmoid, vectorized};
use rayon::prelude::*;

/// Tokens a task takes: about 8,192 products, whatever the number of threads.
fn tokens_a_task(width: usize) -> usize {
    (8_192 / width).max(1)
}

/// y = silu(g) · u, silu(g) = g · σ(g). `gate_up` `[tokens, 2I]` holds g, then u a token; `gated` `[tokens, I]`.
pub fn swiglu_forward(gated: &mut [f32], gate_up: &[f32], width: usize) {
    assert!(gate_up.len() == 2 * gated.len() && gated.len().is_multiple_of(width));
    let task = tokens_a_task(width) * width;
    gated.par_chunks_mut(task).zip(gate_up.par_chunks(2 * task)).for_each(|(gated, gate_up)| {
        vectorized(
            #[inline(always)]
            || {
                for (y, gate_up) in gated.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
                    let (gate, up) = gate_up.split_at(width);
                    for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                        *y = g * sigmoid(g) * u;
                    }
                }
            },
        )
    });
}

/// dg = dy · u · σ(g) · (1 + g · (1 − σ(g))), du = dy · silu(g), into `gate_up_grad` `[tokens, 2I]`.
///
/// Where `gated` is given, silu(g) · u is written there once more: its σ(g) is at hand.
pub fn swiglu_backward(
    gate_up_grad: &mut [f32],
    gated: Option<&mut [f32]>,
    gated_grad: &[f32],
    gate_up: &[f32],
    width: usize,
) {
    let n = gated_grad.len();
    assert!(gate_up.len() == 2 * n && gate_up_grad.len() == 2 * n && n.is_multiple_of(width));
    let task = tokens_a_task(width) * width;
    let tasks = gate_up_grad
        .par_chunks_mut(2 * task)
        .zip(gated_grad.par_chunks(task))
        .zip(gate_up.par_chunks(2 * task));
    match gated {
        None => tasks.for_each(|((grad, dy), gate_up)| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = grad.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width));
                    for ((grad, dy), gate_up) in rows.zip(gate_up.chunks_exact(2 * width)) {
                        backward_row(grad, dy, gate_up);
                    }
                },
            )
        }),
        Some(gated) => {
            assert_eq!(gated.len(), n);
            tasks.zip(gated.par_chunks_mut(task)).for_each(|(((grad, dy), gate_up), gated)| {
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = grad.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width));
                        let rows = rows.zip(gate_up.chunks_exact(2 * width));
                        for (((grad, dy), gate_up), y) in rows.zip(gated.chunks_exact_mut(width)) {
                            backward_row(grad, dy, gate_up);
                            let (gate, up) = gate_up.split_at(width);
                            for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                                *y = g * sigmoid(g) * u;
                            }
                        }
                    },
                )
            });
        }
    }
}

#[inline(always)]
fn backward_row(grad: &mut [f32], dy: &[f32], gate_up: &[f32]) {
    let width = dy.len();
    let ((gate_grad, up_grad), (gate, up)) = (grad.split_at_mut(width), gate_up.split_at(width));
    for i in 0..width {
        let (g, dy) = (gate[i], dy[i]);
        let s = sigmoid(g);
        gate_grad[i] = dy * up[i] * s * (1.0 + g * (1.0 - s));
        up_grad[i] = dy * g * s;
    }
}
