//! Causal grouped-query attention, a block of query rows at a time (the recomputation is Dao et al. 2022's).
//!
//! Tensors stay as the projections leave them, packed a token: turned queries and keys `qk` `[B, T, H + G, D]`, and
//! values as the last G heads of `qkv` `[B, T, H + 2G, D]`, where query head h attends to key head h·G/H. Nothing is
//! transposed or repeated; the products read with strides.

use super::{Matrix, MatrixMut, multiply, vector};
use rayon::prelude::*;
use std::sync::Mutex;

/// Query rows of a block. Scores beyond the block's last row are never computed, so smaller blocks waste less on
/// the masked triangle and larger ones make better products.
const BLOCK: usize = 64;

/// Values of scores that a thread holds; on the way back it holds two of these.
fn scores_len(length: usize) -> usize {
    BLOCK.min(length) * length
}

/// Values of scratch memory that attention takes forward and back, on so many threads.
pub fn attention_scratch_len(shape: AttentionShape, threads: usize) -> usize {
    threads * 2 * scores_len(shape.length)
}

/// Scratch memory by thread. A thread holds its part only while it computes, so no two wait for one.
struct Slots<'a>(Vec<Mutex<&'a mut [f32]>>);

impl<'a> Slots<'a> {
    fn new(scratch: &'a mut [f32], len: usize) -> Self {
        assert!(scratch.len() >= len, "{} values of scratch, {len} needed", scratch.len());
        Self(scratch.chunks_exact_mut(len).map(Mutex::new).collect())
    }

    fn with<R>(&self, body: impl FnOnce(&mut [f32]) -> R) -> R {
        let at = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        // A panic in another thread's products leaves scores that nobody reads again.
        body(&mut self.0[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// B, sequences.
    pub batch: usize,
    /// T, tokens a sequence.
    pub length: usize,
    /// H, query heads.
    pub heads: usize,
    /// G, key and value heads; divides H.
    pub key_value_heads: usize,
    /// D, values a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Q + K: values a token of turned queries and keys.
    pub fn qk_width(&self) -> usize {
        (self.heads + self.key_value_heads) * self.head_dim
    }

    /// Q + 2K: values a token of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Query rows [first, end) of each block; the block attends to keys [0, end).
    fn blocks(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let length = self.length;
        (0..length).step_by(BLOCK).map(move |first| (first, (first + BLOCK).min(length)))
    }

    /// Where head `head` of sequence `batch` starts among `heads` a token, and how far apart its tokens are.
    fn head(&self, batch: usize, head: usize, heads: usize) -> (usize, usize) {
        let stride = heads * self.head_dim;
        (batch * self.length * stride + head * self.head_dim, stride)
    }

    /// Query head `h` among turned queries and keys, or key head `g` after all query heads.
    fn in_qk(&self, batch: usize, head: usize) -> (usize, usize) {
        self.head(batch, head, self.heads + self.key_value_heads)
    }

    /// Head `head` among queries, keys and values.
    fn in_qkv(&self, batch: usize, head: usize) -> (usize, usize) {
        self.head(batch, head, self.heads + 2 * self.key_value_heads)
    }
}

/// A pointer that tasks write disjoint parts of a buffer through.
#[derive(Clone, Copy)]
struct Disjoint(*mut f32);

// SAFETY: the pointer is only used for elements that belong to the using task alone; see each use.
unsafe impl Send for Disjoint {}
// SAFETY: as above.
unsafe impl Sync for Disjoint {}

impl Disjoint {
    /// Rows [first, end) of a head, as a matrix of `head_dim` columns.
    ///
    /// # Safety
    /// The head's rows must lie inside the buffer and be used by no one else for `'a`.
    unsafe fn rows<'a>(
        self,
        head: (usize, usize),
        first: usize,
        end: usize,
        head_dim: usize,
    ) -> MatrixMut<'a> {
        // SAFETY: promised by the caller.
        unsafe { MatrixMut::scattered(self.0.add(head.0 + first * head.1), end - first, head_dim, head.1) }
    }
}

/// O = softmax(Q·Kᵀ/√D + mask)·V, the mask hiding later tokens.
///
/// Writes `output` `[B, T, H, D]` and `log_sums` L `[B, H, T]`, the logarithm of each row's sum of exponentials,
/// from which the backward pass makes the probabilities again. `scratch` has [`attention_scratch_len`] values.
pub fn attention_forward(
    output: &mut [f32],
    log_sums: &mut [f32],
    (qk, qkv): (&[f32], &[f32]),
    shape: AttentionShape,
    scratch: &mut [f32],
) {
    check(output, qk, qkv, shape);
    let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
    let group = heads / key_value_heads;
    let out = Disjoint(output.as_mut_ptr());
    assert_eq!(log_sums.len(), batch * heads * length);
    let slots = Slots::new(scratch, scores_len(length));
    log_sums.par_chunks_mut(length).enumerate().for_each(|(task, log_sums)| {
        slots.with(|scores| {
            let out = &out;
            let (b, h) = (task / heads, task % heads);
            let q_head = shape.in_qk(b, h);
            let k_head = shape.in_qk(b, heads + h / group);
            let v_head = shape.in_qkv(b, heads + key_value_heads + h / group);
            let out_head = shape.head(b, h, heads);
            for (first, end) in shape.blocks() {
                let (q_td, _) = read(qk, q_head, first, end, head_dim);
                let (k_sd, _) = read(qk, k_head, 0, end, head_dim);
                let (v_sd, _) = read(qkv, v_head, 0, end, head_dim);
                let scores = &mut scores[..(end - first) * end];
                let scores_ts = MatrixMut::new(scores, end - first, end);
                multiply(scores_ts, q_td, k_sd.transposed(), shape.scale(), false, false);
                vector::vectorized(
                    #[inline(always)]
                    || {
                        for (row, (scores, log_sum)) in
                            scores.chunks_exact_mut(end).zip(&mut log_sums[first..end]).enumerate()
                        {
                            let (seen, hidden) = scores.split_at_mut(first + row + 1);
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
                    },
                );
                // SAFETY: this task is the only one of sequence b and query head h, `check` saw to the length, and the
                // matrix is gone before the next block.
                let out_td = unsafe { out.rows(out_head, first, end, head_dim) };
                multiply(out_td, Matrix::new(scores, end - first, end), v_sd, 1.0, false, false);
            }
        })
    });
}

/// Gradients of [`attention_forward`] for `output_grad` dO, with its `output` O and `log_sums` L.
///
/// A block at a time: P = exp(Q·Kᵀ/√D − L), dP = dO·Vᵀ, δ = Σ dO·O a row, dS = P·(dP − δ)/√D;
/// dQ = dS·K, dK += dSᵀ·Q, dV += Pᵀ·dO. Overwrites `qkv_grad` `[B, T, H + 2G, D]`: dQ and dK, of what `qk` holds, in its
/// first H + G heads, dV in the rest.
pub fn attention_backward(
    qkv_grad: &mut [f32],
    output_grad: &[f32],
    output: &[f32],
    log_sums: &[f32],
    (qk, qkv): (&[f32], &[f32]),
    shape: AttentionShape,
    scratch: &mut [f32],
) {
    check(output, qk, qkv, shape);
    let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
    assert!(output_grad.len() == output.len() && log_sums.len() == batch * heads * length);
    let group = heads / key_value_heads;
    assert_eq!(qkv_grad.len(), qkv.len());
    let grad = Disjoint(qkv_grad.as_mut_ptr());
    let slots = Slots::new(scratch, 2 * scores_len(length));
    // A task is a key head with all its query heads: it alone adds to that head's dK and dV, in a fixed order.
    (0..batch * key_value_heads).into_par_iter().for_each(|task| {
        slots.with(|scores| {
            let grad = &grad;
            let (b, g) = (task / key_value_heads, task % key_value_heads);
            let (k_head, v_head) = (shape.in_qk(b, heads + g), shape.in_qkv(b, heads + key_value_heads + g));
            let dk_head = shape.in_qkv(b, heads + g);
            let (p, ds) = scores.split_at_mut(scores_len(length));
            for h in g * group..(g + 1) * group {
                let (q_head, dq_head, out_head) =
                    (shape.in_qk(b, h), shape.in_qkv(b, h), shape.head(b, h, heads));
                let log_sums = &log_sums[(b * heads + h) * length..][..length];
                // The last block has all keys before it: it begins dK and dV, the others add.
                for (first, end) in shape.blocks().rev() {
                    let accumulate = h % group > 0 || end < length;
                    let rows = end - first;
                    let (q_td, _) = read(qk, q_head, first, end, head_dim);
                    let (do_td, do_block) = read(output_grad, out_head, first, end, head_dim);
                    let (_, o_block) = read(output, out_head, first, end, head_dim);
                    let (k_sd, _) = read(qk, k_head, 0, end, head_dim);
                    let (v_sd, _) = read(qkv, v_head, 0, end, head_dim);
                    let (p, ds) = (&mut p[..rows * end], &mut ds[..rows * end]);
                    multiply(
                        MatrixMut::new(p, rows, end),
                        q_td,
                        k_sd.transposed(),
                        shape.scale(),
                        false,
                        false,
                    );
                    multiply(MatrixMut::new(ds, rows, end), do_td, v_sd.transposed(), 1.0, false, false);
                    vector::vectorized(
                        #[inline(always)]
                        || {
                            for (row, (p, ds)) in
                                p.chunks_exact_mut(end).zip(ds.chunks_exact_mut(end)).enumerate()
                            {
                                let at = row * out_head.1;
                                let delta =
                                    vector::dot(&do_block[at..][..head_dim], &o_block[at..][..head_dim]);
                                let (log_sum, seen) = (log_sums[first + row], first + row + 1);
                                for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                                    *p = vector::exp(*p - log_sum);
                                    *ds = *p * (*ds - delta) * shape.scale();
                                }
                                p[seen..].fill(0.0);
                                ds[seen..].fill(0.0);
                            }
                        },
                    );
                    let (p_ts, ds_ts) = (Matrix::new(p, rows, end), Matrix::new(ds, rows, end));
                    // SAFETY: query head h belongs to key head g, and this task is the only one of sequence b and key
                    // head g; the three matrices are of three heads, whose columns do not meet, and gone before the next
                    // block.
                    let (dq_td, dk_sd, dv_sd) = unsafe {
                        (
                            grad.rows(dq_head, first, end, head_dim),
                            grad.rows(dk_head, 0, end, head_dim),
                            grad.rows(v_head, 0, end, head_dim),
                        )
                    };
                    multiply(dq_td, ds_ts, k_sd, 1.0, false, false);
                    multiply(dk_sd, ds_ts.transposed(), q_td, 1.0, accumulate, false);
                    multiply(dv_sd, p_ts.transposed(), do_td, 1.0, accumulate, false);
                }
            }
        })
    });
}

/// Rows [first, end) of a head: the matrix, and the slice that begins with it.
fn read(x: &[f32], head: (usize, usize), first: usize, end: usize, head_dim: usize) -> (Matrix<'_>, &[f32]) {
    let from = &x[head.0 + first * head.1..];
    (Matrix::strided(from, end - first, head_dim, head.1), from)
}

fn check(output: &[f32], qk: &[f32], qkv: &[f32], shape: AttentionShape) {
    let tokens = shape.batch * shape.length;
    assert!(shape.length > 0 && shape.heads.is_multiple_of(shape.key_value_heads));
    assert_eq!(output.len(), tokens * shape.heads * shape.head_dim);
    assert!(qk.len() == tokens * shape.qk_width() && qkv.len() == tokens * shape.qkv_width());
}
