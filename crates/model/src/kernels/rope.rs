//! Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face's models, together with
//! Qwen3's RMSNorm of each query and key head, which comes right before it.

use super::{
    AttentionShape,
    rms_norm::{reciprocal_rms, reduce_partials},
    vector::{dot3, vectorized},
};
use rayon::prelude::*;

/// cos and sin of position · θ^(−2i/D), each `[positions, D/2]`.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RotaryTable {
    /// The table for `positions` positions of heads of `head_dim` values.
    ///
    /// Frequencies and angles are rounded to f32 where `transformers` rounds them, so that long contexts agree.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / theta.powf((2 * i) as f64 / head_dim as f64) as f32).collect();
        let angles = || (0..positions).flat_map(|t| frequencies.iter().map(move |f| t as f32 * f));
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), half }
    }

    /// cos, `[positions, D/2]`.
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// sin, `[positions, D/2]`.
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Number of positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    #[inline(always)]
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let row = position * self.half..(position + 1) * self.half;
        (&self.cos[row.clone()], &self.sin[row])
    }
}

/// The scales of query and key heads' norms, `[D]` each; without any, heads are only turned.
pub type HeadNorms<'a> = Option<(&'a [f32], &'a [f32])>;

/// Tokens a task takes: about 8,192 values, whatever the number of threads.
fn tokens_a_task(width: usize) -> usize {
    (8_192 / width).max(1)
}

/// Values that the partial sums of [`qk_norm_rope_backward`] take.
pub fn qk_norm_rope_backward_len(shape: AttentionShape) -> usize {
    let tokens = shape.batch * shape.length;
    tokens.div_ceil(tokens_a_task(shape.qk_width())) * 2 * shape.head_dim
}

/// Queries and keys as attention takes them: each head x of `qkv`'s first H + G heads becomes n = x·r·w, with
/// r = 1/√(mean(x²) + ε) and w the scale of queries or of keys (n = x without norms), and then, with h = D/2 and i < h,
/// n\[i\]·cos − n\[i+h\]·sin and n\[i+h\]·cos + n\[i\]·sin.
///
/// `qkv` `[tokens, Q + 2K]`, `qk` `[tokens, Q + K]`.
///
/// # Panics
/// When the sizes do not agree or T exceeds the table.
pub fn qk_norm_rope_forward(
    qk: &mut [f32],
    qkv: &[f32],
    norms: HeadNorms<'_>,
    table: &RotaryTable,
    shape: AttentionShape,
    eps: f32,
) {
    let (width, packed) = (shape.qk_width(), shape.qkv_width());
    check(qkv, table, shape);
    assert_eq!(qk.len() * packed, qkv.len() * width);
    let (tokens, head_dim, heads) = (tokens_a_task(width), shape.head_dim, shape.heads);
    let half = head_dim / 2;
    qk.par_chunks_mut(tokens * width).zip(qkv.par_chunks(tokens * packed)).enumerate().for_each(
        |(task, (qk, qkv))| {
            vectorized(
                #[inline(always)]
                || {
                    for (at, (qk, qkv)) in
                        qk.chunks_exact_mut(width).zip(qkv.chunks_exact(packed)).enumerate()
                    {
                        let (cos, sin) = table.at((task * tokens + at) % shape.length);
                        let pairs = qk.chunks_exact_mut(head_dim).zip(qkv.chunks_exact(head_dim));
                        for (head, (y, x)) in pairs.enumerate() {
                            let (low, high) = y.split_at_mut(half);
                            let (x_low, x_high) = x.split_at(half);
                            match norms {
                                Some((q, k)) => {
                                    let w = if head < heads { q } else { k };
                                    let r = reciprocal_rms(x, eps);
                                    let (w_low, w_high) = w.split_at(half);
                                    for i in 0..half {
                                        let (a, b) = (x_low[i] * r * w_low[i], x_high[i] * r * w_high[i]);
                                        low[i] = a * cos[i] - b * sin[i];
                                        high[i] = b * cos[i] + a * sin[i];
                                    }
                                }
                                None => {
                                    for i in 0..half {
                                        let (a, b) = (x_low[i], x_high[i]);
                                        low[i] = a * cos[i] - b * sin[i];
                                        high[i] = b * cos[i] + a * sin[i];
                                    }
                                }
                            }
                        }
                    }
                },
            )
        },
    );
}

/// The gradient of [`qk_norm_rope_forward`]: the first Q + K columns of `qkv_grad` `[tokens, Q + 2K]` come as the gradient
/// of `qk` and leave as that of `qkv`.
///
/// Turned back by the opposite angle, as rotations are orthogonal; then, a head, as in
/// [`super::rms_norm_backward`]. The scales' gradients are written into `norm_grads`, or added to them; `partials` has
/// [`qk_norm_rope_backward_len`] values and is used only where there are norms.
#[expect(clippy::too_many_arguments, reason = "what the forward had, and its gradients")]
pub fn qk_norm_rope_backward(
    qkv_grad: &mut [f32],
    norm_grads: Option<(&mut [f32], &mut [f32])>,
    accumulate: bool,
    qkv: &[f32],
    norms: HeadNorms<'_>,
    table: &RotaryTable,
    (shape, partials): (AttentionShape, &mut [f32]),
    eps: f32,
) {
    let (width, packed) = (shape.qk_width(), shape.qkv_width());
    check(qkv, table, shape);
    assert!(qkv_grad.len() == qkv.len() && norms.is_some() == norm_grads.is_some());
    let (tokens, head_dim, heads) = (tokens_a_task(width), shape.head_dim, shape.heads);
    let half = head_dim / 2;
    let turn_back = |grad: &mut [f32], position: usize| {
        let (cos, sin) = table.at(position);
        let (low, high) = grad.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cos[i] + b * sin[i];
            high[i] = b * cos[i] - a * sin[i];
        }
    };
    let task_len = tokens * packed;
    let (Some((q, k)), Some((q_grad, k_grad))) = (norms, norm_grads) else {
        qkv_grad.par_chunks_mut(task_len).enumerate().for_each(|(task, grad)| {
            vectorized(
                #[inline(always)]
                || {
                    for (at, grad) in grad.chunks_exact_mut(packed).enumerate() {
                        for grad in grad[..width].chunks_exact_mut(head_dim) {
                            turn_back(grad, (task * tokens + at) % shape.length);
                        }
                    }
                },
            )
        });
        return;
    };
    let partials = &mut partials[..qk_norm_rope_backward_len(shape)];
    let results = qkv_grad.par_chunks_mut(task_len).zip(partials.par_chunks_mut(2 * head_dim));
    results.zip(qkv.par_chunks(task_len)).enumerate().for_each(|(task, ((grad, partial), qkv))| {
        vectorized(
            #[inline(always)]
            || {
                partial.fill(0.0);
                let (q_partial, k_partial) = partial.split_at_mut(head_dim);
                for (at, (grad, qkv)) in
                    grad.chunks_exact_mut(packed).zip(qkv.chunks_exact(packed)).enumerate()
                {
                    let pairs = grad[..width].chunks_exact_mut(head_dim).zip(qkv.chunks_exact(head_dim));
                    for (head, (grad, x)) in pairs.enumerate() {
                        turn_back(grad, (task * tokens + at) % shape.length);
                        let is_query = head < heads;
                        let w = if is_query { q } else { k };
                        let dw = if is_query { &mut *q_partial } else { &mut *k_partial };
                        let r = reciprocal_rms(x, eps);
                        let s = r * r / head_dim as f32 * dot3(grad, w, x);
                        for ((d, dw), (x, w)) in grad.iter_mut().zip(dw).zip(x.iter().zip(w)) {
                            *dw += *d * x * r;
                            *d = r * (*d * w - x * s);
                        }
                    }
                }
            },
        );
    });
    // Of each task's pair, the first half is the queries' and the second the keys'.
    for (grad, first) in [(q_grad, 0), (k_grad, head_dim)] {
        assert_eq!(grad.len(), head_dim);
        if !accumulate {
            grad.fill(0.0);
        }
        for part in partials.chunks_exact(2 * head_dim) {
            reduce_partials(grad, &part[first..][..head_dim], true);
        }
    }
}

fn check(qkv: &[f32], table: &RotaryTable, shape: AttentionShape) {
    assert_eq!(qkv.len(), shape.batch * shape.length * shape.qkv_width());
    assert!(shape.length <= table.positions() && table.half * 2 == shape.head_dim);
}
