//! Root mean square normalisation (Zhang, Sennrich 2019) of rows of C values.

use super::vector::{dot, dot3, vectorized};
use rayon::prelude::*;

/// Rows a task takes: about 8,192 values, whatever the number of threads.
fn rows_a_task(width: usize) -> usize {
    (8_192 / width).max(1)
}

/// Values that the partial sums of [`rms_norm_backward`] take.
pub fn rms_norm_backward_len(rows: usize, width: usize) -> usize {
    rows.div_ceil(rows_a_task(width)) * width
}

#[inline(always)]
fn reciprocal_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// y = x · r · w, r = 1 / √(mean(x²) + ε). `x`, `output` `[rows, C]`, `weight` `[C]`.
pub fn rms_norm_forward(output: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    assert!(output.len() == x.len() && x.len().is_multiple_of(weight.len()));
    let task = rows_a_task(weight.len()) * weight.len();
    output.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(output, x)| {
        vectorized(
            #[inline(always)]
            || {
                for (y, x) in output.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
                    let r = reciprocal_rms(x, eps);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                        *y = x * r * w;
                    }
                }
            },
        )
    });
}

/// With r as above and s = r² / C · Σ dy·w·x a row: dx = r · (dy·w − x·s), dw = Σ over rows of dy·x·r.
///
/// Writes dx `[rows, C]`, or adds to what is there when `accumulate`, as at the end of a residual branch; adds dw
/// to `weight_grad` `[C]`.
pub fn rms_norm_backward(
    (x_grad, accumulate): (&mut [f32], bool),
    weight_grad: &mut [f32],
    output_grad: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let width = weight.len();
    assert!(x_grad.len() == x.len() && output_grad.len() == x.len() && x.len().is_multiple_of(width));
    assert_eq!(weight_grad.len(), width);
    let task = rows_a_task(width) * width;
    let partial: Vec<Vec<f32>> = x_grad
        .par_chunks_mut(task)
        .zip(output_grad.par_chunks(task))
        .zip(x.par_chunks(task))
        .map(|((x_grad, output_grad), x)| {
            let mut weight_grad = vec![0.0; width];
            vectorized(
                #[inline(always)]
                || {
                    let rows = x_grad.chunks_exact_mut(width).zip(output_grad.chunks_exact(width));
                    for ((dx, dy), x) in rows.zip(x.chunks_exact(width)) {
                        let r = reciprocal_rms(x, eps);
                        let s = r * r / width as f32 * dot3(dy, weight, x);
                        if !accumulate {
                            dx.fill(0.0);
                        }
                        for ((dx, dw), ((dy, x), w)) in
                            dx.iter_mut().zip(&mut weight_grad).zip(dy.iter().zip(x).zip(weight))
                        {
                            *dx += r * (dy * w - x * s);
                            *dw += dy * x * r;
                        }
                    }
                },
            );
            weight_grad
        })
        .collect();
    for part in partial {
        weight_grad.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
}
