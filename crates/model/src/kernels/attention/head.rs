//! Attention of one head on one thread, a block of query rows at a time.
//!
//! What is hidden by the mask is computed only where it shares a vector or a tile with what is seen.

use crate::kernels::{
    Matrix, MatrixMut,
    product::{Right, TILE, multiply_here, right_len},
    vector,
};
use pulp::{Arch, Simd, WithSimd};

/// Query rows whose scores are made at once. The columns of a block end with its last row: smaller blocks compute less
/// that is hidden.
const BLOCK: usize = 32;

/// Query rows whose scores are kept on the way back until keys and values get their gradients: a multiple of
/// [`BLOCK`]; more make longer sums and fewer passes over these gradients.
const KEPT: usize = 128;

/// From a row of scores to the next: room for a tile beyond the last key, and never a multiple of 4 KiB, at which rows
/// would push each other out of the first cache.
fn scores_stride(length: usize) -> usize {
    let stride = length.next_multiple_of(16) + 16;
    if stride.is_multiple_of(1024) { stride + 16 } else { stride }
}

/// Values of scratch memory that [`forward`] takes.
pub(super) fn forward_len(length: usize, head_dim: usize) -> usize {
    BLOCK.min(length) * scores_stride(length)
        + right_len(head_dim, length, true)
        + right_len(length, head_dim, false)
}

/// Values of scratch memory that [`backward`] takes.
pub(super) fn backward_len(length: usize, head_dim: usize) -> usize {
    2 * KEPT.min(length) * scores_stride(length)
        + 2 * right_len(head_dim, length, true)
        + 3 * right_len(length, head_dim, false)
}

/// Queries, keys and values of a head, `[T, D]` each.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) q: Matrix<'a>,
    pub(super) k: Matrix<'a>,
    pub(super) v: Matrix<'a>,
    pub(super) scale: f32,
}

/// O = softmax(scale·Q·Kᵀ + mask)·V, and ln Σ exp of each row.
pub(super) fn forward(out: MatrixMut<'_>, log_sums: &mut [f32], head: Head<'_>, scratch: &mut [f32]) {
    Arch::new().dispatch(Forward { out, log_sums, head, scratch });
}

struct Forward<'a> {
    out: MatrixMut<'a>,
    log_sums: &'a mut [f32],
    head: Head<'a>,
    scratch: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut out, log_sums, head: Head { q, k, v, scale }, scratch } = self;
        let (length, width) = (q.rows, q.columns);
        let stride = scores_stride(length);
        let (scores, mut memory) = scratch.split_at_mut(BLOCK.min(length) * stride);
        let (k_ds, v_sd) = (Right::new(k.transposed(), &mut memory), Right::new(v, &mut memory));
        for first in (0..length).step_by(BLOCK) {
            let rows = BLOCK.min(length - first);
            let end = first + rows;
            let q_td = q.part((first, rows), (0, width));
            multiply_here(
                simd,
                MatrixMut::strided(scores, rows, end, stride),
                q_td,
                k_ds.columns(end),
                scale,
                false,
            );
            for (row, (scores, log_sum)) in
                scores.chunks_exact_mut(stride).zip(&mut log_sums[first..end]).enumerate()
            {
                let (seen, hidden) = scores[..end].split_at_mut(first + row + 1);
                let max = vector::max(seen);
                for score in seen.iter_mut() {
                    *score = vector::exp(*score - max);
                }
                let sum = vector::sum(seen);
                let inverse = 1.0 / sum;
                for score in seen.iter_mut() {
                    *score *= inverse;
                }
                hidden.fill(0.0);
                *log_sum = max + sum.ln();
            }
            for (row, rows, seen) in tiles(first, rows) {
                let p_ts = Matrix::strided(&scores[row * stride..], rows, seen, stride);
                multiply_here(simd, out.rows(first + row, rows), p_ts, v_sd.rows(0, seen), 1.0, false);
            }
        }
    }
}

/// Tiles of a block of query rows: first row in the block, rows, and the keys that the last of them sees.
#[inline(always)]
fn tiles(first: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..rows).step_by(TILE).map(move |row| {
        let tile = TILE.min(rows - row);
        (row, tile, first + row + tile)
    })
}

/// A query head on its way back, `[T, D]` each, and its `log_sums`.
#[derive(Clone, Copy)]
pub(super) struct OutputGradient<'a> {
    pub(super) out: Matrix<'a>,
    pub(super) grad: Matrix<'a>,
    pub(super) log_sums: &'a [f32],
}

/// dQ, and dK and dV, which are added to where `accumulate` says so.
pub(super) struct HeadGradient<'a> {
    pub(super) q: MatrixMut<'a>,
    pub(super) k: MatrixMut<'a>,
    pub(super) v: MatrixMut<'a>,
    pub(super) accumulate: bool,
}

/// P = exp(scale·Q·Kᵀ − L), dP = dO·Vᵀ, δ = Σ dO·O a row, dS = scale·P·(dP − δ); dQ = dS·K, dK = dSᵀ·Q, dV = Pᵀ·dO.
pub(super) fn backward(
    gradient: HeadGradient<'_>,
    output: OutputGradient<'_>,
    head: Head<'_>,
    scratch: &mut [f32],
) {
    Arch::new().dispatch(Backward { gradient, output, head, scratch });
}

struct Backward<'a> {
    gradient: HeadGradient<'a>,
    output: OutputGradient<'a>,
    head: Head<'a>,
    scratch: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { gradient, output, head: Head { q, k, v, scale }, scratch } = self;
        let HeadGradient { q: mut dq, k: mut dk, v: mut dv, accumulate } = gradient;
        let (length, width) = (q.rows, q.columns);
        let stride = scores_stride(length);
        let (p, memory) = scratch.split_at_mut(KEPT.min(length) * stride);
        let (ds, mut memory) = memory.split_at_mut(KEPT.min(length) * stride);
        let (k_ds, v_ds) = (Right::new(k.transposed(), &mut memory), Right::new(v.transposed(), &mut memory));
        let (k_sd, q_td) = (Right::new(k, &mut memory), Right::new(q, &mut memory));
        let do_td = Right::new(output.grad, &mut memory);
        // The last rows see all keys: they begin dK and dV, the others add.
        for kept in (0..length).step_by(KEPT).rev() {
            let kept_end = length.min(kept + KEPT);
            for first in (kept..kept_end).step_by(BLOCK) {
                let rows = BLOCK.min(kept_end - first);
                let end = first + rows;
                let at = (first - kept) * stride;
                let (p, ds) = (&mut p[at..at + rows * stride], &mut ds[at..at + rows * stride]);
                let part = ((first, rows), (0, width));
                let scores = MatrixMut::strided(p, rows, end, stride);
                multiply_here(simd, scores, q.part(part.0, part.1), k_ds.columns(end), scale, false);
                let dp = MatrixMut::strided(ds, rows, end, stride);
                multiply_here(simd, dp, output.grad.part(part.0, part.1), v_ds.columns(end), 1.0, false);
                for (row, (p, ds)) in p.chunks_exact_mut(stride).zip(ds.chunks_exact_mut(stride)).enumerate()
                {
                    let token = first + row;
                    let delta = vector::dot(output.grad.row(token), output.out.row(token));
                    let (log_sum, seen) = (output.log_sums[token], token + 1);
                    for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                        *p = vector::exp(*p - log_sum);
                        *ds = *p * (*ds - delta) * scale;
                    }
                    // The tile of keys that the block ends in goes a little beyond it.
                    p[seen..end + TILE].fill(0.0);
                    ds[seen..end + TILE].fill(0.0);
                }
                for (row, rows, seen) in tiles(first, rows) {
                    let ds_ts = Matrix::strided(&ds[row * stride..], rows, seen, stride);
                    multiply_here(simd, dq.rows(first + row, rows), ds_ts, k_sd.rows(0, seen), 1.0, false);
                }
            }
            let add = accumulate || kept_end < length;
            for key in (0..kept_end).step_by(TILE) {
                let keys = TILE.min(kept_end - key);
                // Earlier rows do not see these keys.
                let first = key.max(kept);
                let rows = kept_end - first;
                let at = (first - kept) * stride + key;
                let ds_st = Matrix::strided(&ds[at..], rows, keys, stride).transposed();
                let p_st = Matrix::strided(&p[at..], rows, keys, stride).transposed();
                multiply_here(simd, dk.rows(key, keys), ds_st, q_td.rows(first, rows), 1.0, add);
                multiply_here(simd, dv.rows(key, keys), p_st, do_td.rows(first, rows), 1.0, add);
            }
        }
    }
}

#[cfg(test)]
mod tests;
