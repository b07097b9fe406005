//! The CPU's kernels, by the packed layouts of the GPU's.

use candlewick_model::kernels::{self as cpu, AttentionShape, HeadGradients, RotaryTable};

/// Columns [from, from + count) of rows of `width`.
pub(crate) fn columns(packed: &[f32], width: usize, from: usize, count: usize) -> Vec<f32> {
    packed.chunks_exact(width).flat_map(|row| row[from..from + count].iter().copied()).collect()
}

/// Rows of all parts side by side, each with its width.
fn packed(parts: &[(&[f32], usize)]) -> Vec<f32> {
    let rows = parts[0].0.len() / parts[0].1;
    (0..rows)
        .flat_map(|row| {
            parts.iter().flat_map(move |&(part, width)| part[row * width..(row + 1) * width].iter().copied())
        })
        .collect()
}

/// Widths of queries, and of keys.
pub(crate) fn widths(shape: AttentionShape) -> [usize; 2] {
    [shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim]
}

pub(crate) fn rms_norm_forward(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    cpu::rms_norm_forward(&mut y, x, w, eps);
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
    cpu::rms_norm_backward((dx, true), &mut dw, dy, x, w, eps);
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
    let [q, k] = widths(shape);
    let mut parts = [columns(qkv, q + 2 * k, 0, q), columns(qkv, q + 2 * k, q, k)];
    for (i, heads) in [shape.heads, shape.key_value_heads].into_iter().enumerate() {
        if let Some(norms) = norms {
            parts[i] = rms_norm_forward(&parts[i], norms[i], eps);
        }
        cpu::rotate(&mut parts[i], table, shape.length, heads, false);
    }
    packed(&[(&parts[0], q), (&parts[1], k)])
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
    let [q, k] = widths(shape);
    let width = q + 2 * k;
    let mut dw = [vec![0.0; shape.head_dim], vec![0.0; shape.head_dim]];
    let mut parts = [columns(dqkv, width, 0, q), columns(dqkv, width, q, k)];
    let inputs = [columns(qkv, width, 0, q), columns(qkv, width, q, k)];
    for (i, heads) in [shape.heads, shape.key_value_heads].into_iter().enumerate() {
        cpu::rotate(&mut parts[i], table, shape.length, heads, true);
        if let Some(norms) = norms {
            let dn = std::mem::replace(&mut parts[i], vec![0.0; inputs[i].len()]);
            dw[i] = rms_norm_backward(&mut parts[i], &dw[i], &dn, &inputs[i], norms[i], eps);
        }
    }
    (packed(&[(&parts[0], q), (&parts[1], k), (&columns(dqkv, width, q + k, k), k)]), dw)
}

/// The output and the rows' logarithms of sums.
pub(crate) fn attention_forward(qk: &[f32], qkv: &[f32], shape: AttentionShape) -> [Vec<f32>; 2] {
    let [q, k, v] = apart(qk, qkv, shape);
    let mut out = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; shape.batch * shape.heads * shape.length];
    cpu::attention_forward(&mut out, &mut log_sums, (&q, &k, &v), shape);
    [out, log_sums]
}

/// The gradients of queries, keys and values, packed.
pub(crate) fn attention_backward(
    dout: &[f32],
    [out, log_sums]: [&[f32]; 2],
    (qk, qkv): (&[f32], &[f32]),
    shape: AttentionShape,
) -> Vec<f32> {
    let [q, k, v] = apart(qk, qkv, shape);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    cpu::attention_backward((&mut dq, &mut dk, &mut dv), dout, out, log_sums, (&q, &k, &v), shape);
    let [q_width, k_width] = widths(shape);
    packed(&[(&dq, q_width), (&dk, k_width), (&dv, k_width)])
}

fn apart(qk: &[f32], qkv: &[f32], shape: AttentionShape) -> [Vec<f32>; 3] {
    let [q, k] = widths(shape);
    [columns(qk, q + k, 0, q), columns(qk, q + k, q, k), columns(qkv, q + 2 * k, q + k, k)]
}

pub(crate) fn swiglu_forward(gate_up: &[f32], inner: usize) -> Vec<f32> {
    let mut h = vec![0.0; gate_up.len() / 2];
    let [gate, up] = [0, inner].map(|from| columns(gate_up, 2 * inner, from, inner));
    cpu::swiglu_forward(&mut h, &gate, &up);
    h
}

/// dgate and dup, packed.
pub(crate) fn swiglu_backward(dh: &[f32], gate_up: &[f32], inner: usize) -> Vec<f32> {
    let [gate, up] = [0, inner].map(|from| columns(gate_up, 2 * inner, from, inner));
    let (mut dgate, mut dup) = (vec![0.0; dh.len()], vec![0.0; dh.len()]);
    cpu::swiglu_backward(&mut dgate, &mut dup, dh, &gate, &up);
    packed(&[(&dgate, inner), (&dup, inner)])
}

/// Σ of losses, and the gradients of logits.
pub(crate) fn cross_entropy(
    logits: &[f32],
    targets: &[u32],
    vocabulary: usize,
    scale: f32,
) -> (f64, Vec<f32>) {
    // The identity as output matrix makes the inputs the logits.
    let identity: Vec<f32> = (0..vocabulary * vocabulary)
        .map(|at| if at / vocabulary == at % vocabulary { 1.0 } else { 0.0 })
        .collect();
    let (mut dx, mut dw) = (vec![0.0; logits.len()], vec![0.0; identity.len()]);
    let gradients = HeadGradients { scale, x: &mut dx, weight: &mut dw };
    (cpu::head_cross_entropy(logits, &identity, targets, vocabulary, Some(gradients)), dx)
}
