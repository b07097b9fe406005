//! Causal grouped-query attention, a block of query rows at a time (the recomputation is Dao et al. 2022's).
//!
//! Tensors stay as the projections leave them, packed a token: turned queries and keys `qk` `[B, T, H + G, D]`, and
//! values as the last G heads of `qkv` `[B, T, H + 2G, D]`, where query head h attends to key head h·G/H. Nothing is
//! transposed or repeated; the products read with strides.

mod head;

use super::{Matrix, MatrixMut};
use head::{Head, HeadGradient, OutputGradient};
use rayon::prelude::*;
use std::sync::Mutex;

/// Values of scratch memory that a thread takes.
fn thread_scratch_len(shape: AttentionShape) -> usize {
    let AttentionShape { length, head_dim, .. } = shape;
    head::forward_len(length, head_dim).max(head::backward_len(length, head_dim))
}

/// Values of scratch memory that attention takes forward and back, on so many threads.
pub fn attention_scratch_len(shape: AttentionShape, threads: usize) -> usize {
    threads * thread_scratch_len(shape)
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
    /// A head of `length` tokens, as a matrix of `head_dim` columns.
    ///
    /// # Safety
    /// The head must lie inside the buffer and be used by no one else for `'a`.
    unsafe fn head<'a>(
        self,
        (first, stride): (usize, usize),
        length: usize,
        head_dim: usize,
    ) -> MatrixMut<'a> {
        // SAFETY: promised by the caller.
        unsafe { MatrixMut::scattered(self.0.add(first), length, head_dim, stride) }
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
    let AttentionShape { batch, length, heads, head_dim, .. } = shape;
    let out = Disjoint(output.as_mut_ptr());
    assert_eq!(log_sums.len(), batch * heads * length);
    let slots = Slots::new(scratch, thread_scratch_len(shape));
    log_sums.par_chunks_mut(length).enumerate().for_each(|(task, log_sums)| {
        slots.with(|scratch| {
            let out = &out;
            let (b, h) = (task / heads, task % heads);
            let head = head(qk, qkv, shape, b, h);
            // SAFETY: this task is the only one of sequence b and query head h, and `check` saw to the length.
            let out = unsafe { out.head(shape.head(b, h, heads), length, head_dim) };
            head::forward(out, log_sums, head, scratch);
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
    let slots = Slots::new(scratch, thread_scratch_len(shape));
    // A task is a key head with all its query heads: it alone adds to that head's dK and dV, in a fixed order.
    (0..batch * key_value_heads).into_par_iter().for_each(|task| {
        slots.with(|scratch| {
            let grad = &grad;
            let (b, g) = (task / key_value_heads, task % key_value_heads);
            for h in g * group..(g + 1) * group {
                let of = |x| read(x, shape.head(b, h, heads), length, head_dim);
                let log_sums = &log_sums[(b * heads + h) * length..][..length];
                let output = OutputGradient { out: of(output), grad: of(output_grad), log_sums };
                // SAFETY: query head h belongs to key head g, and this task is the only one of sequence b and key head
                // g; the three matrices are of three heads, whose columns do not meet, and gone before the next query
                // head.
                let gradient = unsafe {
                    HeadGradient {
                        q: grad.head(shape.in_qkv(b, h), length, head_dim),
                        k: grad.head(shape.in_qkv(b, heads + g), length, head_dim),
                        v: grad.head(shape.in_qkv(b, heads + key_value_heads + g), length, head_dim),
                        accumulate: h % group > 0,
                    }
                };
                head::backward(gradient, output, head(qk, qkv, shape, b, h), scratch);
            }
        })
    });
}

/// Query head `h` of sequence `b`, with the keys and values that it attends to.
fn head<'a>(qk: &'a [f32], qkv: &'a [f32], shape: AttentionShape, b: usize, h: usize) -> Head<'a> {
    let AttentionShape { length, heads, key_value_heads, head_dim, .. } = shape;
    let g = h * key_value_heads / heads;
    Head {
        q: read(qk, shape.in_qk(b, h), length, head_dim),
        k: read(qk, shape.in_qk(b, heads + g), length, head_dim),
        v: read(qkv, shape.in_qkv(b, heads + key_value_heads + g), length, head_dim),
        scale: shape.scale(),
    }
}

/// A head as a matrix.
fn read(x: &[f32], (first, stride): (usize, usize), length: usize, head_dim: usize) -> Matrix<'_> {
    Matrix::strided(&x[first..], length, head_dim, stride)
}

fn check(output: &[f32], qk: &[f32], qkv: &[f32], shape: AttentionShape) {
    let tokens = shape.batch * shape.length;
    assert!(shape.length > 0 && shape.heads.is_multiple_of(shape.key_value_heads));
    assert_eq!(output.len(), tokens * shape.heads * shape.head_dim);
    assert!(qk.len() == tokens * shape.qk_width() && qkv.len() == tokens * shape.qkv_width());
}
