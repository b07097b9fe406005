//! The CPU's kernels, whose layouts are the GPU's, with the buffers that they want.

use candlewick_model::kernels::{self as cpu, AttentionShape, CrossEntropyGradient, RotaryTable};

/// Columns [from, from + count) of rows of `width`.
pub(crate) fn columns(packed: &[f32], width: usize, from: usize, count: usize) -> Vec<f32> {
    packed.chunks_exact(width).flat_map(|row| row[from..from + count].iter().copied()).collect()
}

/// Widths of queries, and of keys.
pub(crate) fn widths(shape: AttentionShape) -> [usize; 2] {
    [shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim]
}

/// The norm, and the reciprocal root mean square of each row.
fn normed(x: &[f32], w: &[f32], eps: f32) -> [Vec<f32>; 2] {
    let (mut y, mut rstd) = (vec![0.0; x.len()], vec![0.0; x.len() / w.len()]);
    cpu::rms_norm_forward(&mut y, &mut rstd, x, w, eps);
    [y, rstd]
}

pub(crate) fn rms_norm_forward(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let [y, _] = normed(x, w, eps);
    y
}

/// `dx` is added to what is there; so is dw, which is given before and returned after.
pub(crate) fn rms_norm_backward(
    dx: &mut [f32],
    dw: &[f32],
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    eps: f32,
) -> Vec<f32> {
    let mut dw = dw.to_vec();
    let [_, rstd] = normed(x, w, eps);
    let mut partials = vec![0.0; cpu::rms_norm_backward_len(rstd.len(), w.len())];
    cpu::rms_norm_backward((dx, true), (&mut dw, true), dy, (x, &rstd), w, &mut partials);
    dw
}

/// Queries and keys, normed where there are norms, and turned.
pub(crate) fn qk_norm_rope_forward(
    qkv: &[f32],
    norms: Option<[&[f32]; 2]>,
    table: &RotaryTable,
    shape: AttentionShape,
    eps: f32,
) -> Vec<f32> {
    let mut qk = vec![0.0; shape.batch * shape.length * shape.qk_width()];
    cpu::qk_norm_rope_forward(&mut qk, qkv, norms.map(|[q, k]| (q, k)), table, shape, eps);
    qk
}

/// The gradients of `qkv` and of the two norms; the values' part stays.
pub(crate) fn qk_norm_rope_backward(
    dqkv: &[f32],
    qkv: &[f32],
    norms: Option<[&[f32]; 2]>,
    table: &RotaryTable,
    shape: AttentionShape,
    eps: f32,
) -> (Vec<f32>, [Vec<f32>; 2]) {
    let mut dqkv = dqkv.to_vec();
    let (mut dq, mut dk) = (vec![0.0; shape.head_dim], vec![0.0; shape.head_dim]);
    let mut partials = vec![0.0; cpu::qk_norm_rope_backward_len(shape)];
    let grads = if norms.is_some() { Some((&mut dq[..], &mut dk[..])) } else { None };
    let norms = norms.map(|[q, k]| (q, k));
    cpu::qk_norm_rope_backward(&mut dqkv, grads, false, qkv, norms, table, (shape, &mut partials), eps);
    (dqkv, [dq, dk])
}

fn scratch(shape: AttentionShape) -> Vec<f32> {
    vec![0.0; cpu::attention_scratch_len(shape, 2)]
}

/// The output and the rows' logarithms of sums.
pub(crate) fn attention_forward(qk: &[f32], qkv: &[f32], shape: AttentionShape) -> [Vec<f32>; 2] {
    let tokens = shape.batch * shape.length;
    let mut out = vec![0.0; tokens * shape.heads * shape.head_dim];
    let mut log_sums = vec![0.0; tokens * shape.heads];
    cpu::attention_forward(&mut out, &mut log_sums, (qk, qkv), shape, &mut scratch(shape));
    [out, log_sums]
}

/// The gradients of queries, keys and values, packed.
pub(crate) fn attention_backward(
    dout: &[f32],
    [out, log_sums]: [&[f32]; 2],
    (qk, qkv): (&[f32], &[f32]),
    shape: AttentionShape,
) -> Vec<f32> {
    let mut dqkv = vec![0.0; qkv.len()];
    cpu::attention_backward(&mut dqkv, dout, out, log_sums, (qk, qkv), shape, &mut scratch(shape));
    dqkv
}

pub(crate) fn swiglu_forward(gate_up: &[f32], inner: usize) -> Vec<f32> {
    let mut h = vec![0.0; gate_up.len() / 2];
    cpu::swiglu_forward(&mut h, gate_up, inner);
    h
}

/// dgate and dup, packed.
pub(crate) fn swiglu_backward(dh: &[f32], gate_up: &[f32], inner: usize) -> Vec<f32> {
    let mut dgate_up = vec![0.0; gate_up.len()];
    cpu::swiglu_backward(&mut dgate_up, None, dh, gate_up, inner);
    dgate_up
}

/// Σ of losses, and the gradients of logits.
pub(crate) fn cross_entropy(
    logits: &[f32],
    targets: &[u32],
    vocabulary: usize,
    gradient: CrossEntropyGradient,
) -> (f64, Vec<f32>) {
    let (mut dlogits, mut losses) = (logits.to_vec(), vec![0.0; targets.len()]);
    cpu::cross_entropy(&mut losses, &mut dlogits, targets, vocabulary, Some(gradient));
    (losses.iter().map(|&nats| f64::from(nats)).sum(), dlogits)
}
