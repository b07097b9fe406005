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

/// 1 / √(mean(x²) + ε).
#[inline(always)]
pub(super) fn reciprocal_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// y = x · r · w, r = 1 / √(mean(x²) + ε). `x`, `y` `[rows, C]`, `weight` `[C]`; r is kept in `rstd` `[rows]`.
pub fn rms_norm_forward(y: &mut [f32], rstd: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    assert!(y.len() == x.len() && x.len() == rstd.len() * width);
    let rows = rows_a_task(width);
    let tasks = y.par_chunks_mut(rows * width).zip(rstd.par_chunks_mut(rows)).zip(x.par_chunks(rows * width));
    tasks.for_each(|((y, rstd), x)| {
        vectorized(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((y, x), r) in rows.zip(rstd) {
                    *r = reciprocal_rms(x, eps);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                        *y = x * *r * w;
                    }
                }
            },
        )
    });
}

/// sum = x + delta, then [`rms_norm_forward`] of the sum while it is at hand. All `[rows, C]`.
pub fn add_rms_norm_forward(
    sum: &mut [f32],
    y: &mut [f32],
    rstd: &mut [f32],
    (x, delta): (&[f32], &[f32]),
    weight: &[f32],
    eps: f32,
) {
    let (n, width) = (x.len(), weight.len());
    assert!(sum.len() == n && y.len() == n && delta.len() == n && n == rstd.len() * width);
    let rows = rows_a_task(width);
    let task = rows * width;
    let tasks = sum.par_chunks_mut(task).zip(y.par_chunks_mut(task)).zip(rstd.par_chunks_mut(rows));
    tasks.zip(x.par_chunks(task).zip(delta.par_chunks(task))).for_each(|(((sum, y), rstd), (x, delta))| {
        vectorized(
            #[inline(always)]
            || {
                let results = sum.chunks_exact_mut(width).zip(y.chunks_exact_mut(width)).zip(rstd);
                let inputs = x.chunks_exact(width).zip(delta.chunks_exact(width));
                for (((sum, y), r), (x, delta)) in results.zip(inputs) {
                    for ((sum, x), delta) in sum.iter_mut().zip(x).zip(delta) {
                        *sum = x + delta;
                    }
                    *r = reciprocal_rms(sum, eps);
                    for ((y, x), w) in y.iter_mut().zip(sum.iter()).zip(weight) {
                        *y = x * *r * w;
                    }
                }
            },
        )
    });
}

/// With r as above and s = r² / C · Σ dy·w·x a row: dx = r · (dy·w − x·s), dw = Σ over rows of dy·x·r.
///
/// Writes dx `[rows, C]`, or adds to what is there when told so, as at the end of a residual branch; likewise dw `[C]`.
/// `partials` has [`rms_norm_backward_len`] values: each task sums its rows there, and the tasks are added in order.
pub fn rms_norm_backward(
    (x_grad, accumulate): (&mut [f32], bool),
    (weight_grad, accumulate_weight): (&mut [f32], bool),
    output_grad: &[f32],
    (x, rstd): (&[f32], &[f32]),
    weight: &[f32],
    partials: &mut [f32],
) {
    let width = weight.len();
    assert!(x_grad.len() == x.len() && output_grad.len() == x.len() && x.len() == rstd.len() * width);
    assert_eq!(weight_grad.len(), width);
    let rows = rows_a_task(width);
    let task = rows * width;
    let partials = &mut partials[..rms_norm_backward_len(rstd.len(), width)];
    let inputs = output_grad.par_chunks(task).zip(x.par_chunks(task)).zip(rstd.par_chunks(rows));
    let results = x_grad.par_chunks_mut(task).zip(partials.par_chunks_mut(width));
    results.zip(inputs).for_each(|((x_grad, partial), ((output_grad, x), rstd))| {
        vectorized(
            #[inline(always)]
            || {
                partial.fill(0.0);
                let rows = x_grad.chunks_exact_mut(width).zip(output_grad.chunks_exact(width));
                for (((dx, dy), x), &r) in rows.zip(x.chunks_exact(width)).zip(rstd) {
                    let s = r * r / width as f32 * dot3(dy, weight, x);
                    if !accumulate {
                        dx.fill(0.0);
                    }
                    for ((dx, dw), ((dy, x), w)) in
                        dx.iter_mut().zip(partial.iter_mut()).zip(dy.iter().zip(x).zip(weight))
                    {
                        *dx += r * (dy * w - x * s);
                        *dw += dy * x * r;
                    }
                }
            },
        );
    });
    reduce_partials(weight_grad, partials, accumulate_weight);
}

/// grad = Σ over parts, or added to what is there: `partials` `[parts, C]`, in their order.
pub(super) fn reduce_partials(grad: &mut [f32], partials: &[f32], accumulate: bool) {
    if !accumulate {
        grad.fill(0.0);
    }
    for part in partials.chunks_exact(grad.len()) {
        grad.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
}
