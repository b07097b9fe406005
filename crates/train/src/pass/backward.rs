use super::{
    MicroBatch, Pass,
    forward::attention_shape,
    weights::BlockIndex,
    workspace::{BlockState, Scratch},
};
use candlewick_model::{
    ModelConfig,
    kernels::{
        AttentionShape, HeadGradients, Matrix, MatrixMut, RotaryTable, attention_backward,
        embedding_backward, head_cross_entropy, multiply, rms_norm_backward, rotate, swiglu_backward,
    },
};

impl Pass {
    /// Σ nats over the counted targets; adds the gradient of scale · Σ nats to `gradients`, one buffer a parameter.
    pub(crate) fn forward_backward(
        &mut self,
        weights: &[&[f32]],
        batch: MicroBatch<'_>,
        scale: f64,
        gradients: &mut [Vec<f32>],
    ) -> f64 {
        self.forward(weights, batch, true);
        let Self { config, index, rotary, workspace, .. } = self;
        let shape = attention_shape(config, batch);
        let (width, eps) = (config.hidden_size, config.rms_norm_eps as f32);
        let scratch = &mut workspace.gradients;
        let head =
            HeadGradients { scale: scale as f32, x: &mut scratch.normed, weight: &mut gradients[index.head] };
        let nats =
            head_cross_entropy(&workspace.last_normed, weights[index.head], batch.targets, width, Some(head));
        rms_norm_backward(
            (&mut scratch.x, false),
            &mut gradients[index.norm],
            &scratch.normed,
            &workspace.last,
            weights[index.norm],
            eps,
        );
        for (block, state) in index.blocks.iter().zip(&workspace.blocks).rev() {
            feed_forward_backward(config, weights, *block, state, scratch, gradients);
            attention_part_backward(config, rotary, weights, *block, state, scratch, gradients, shape);
        }
        embedding_backward(&mut gradients[index.embedding], &scratch.x, batch.inputs, width);
        nats
    }
}

/// output = m + down·(silu(gate)·up)(norm m): the gradient of the output, in `scratch.x`, becomes that of m.
fn feed_forward_backward(
    config: &ModelConfig,
    weights: &[&[f32]],
    index: BlockIndex,
    state: &BlockState,
    scratch: &mut Scratch,
    gradients: &mut [Vec<f32>],
) {
    let (c, i) = (config.hidden_size, config.intermediate_size);
    let Scratch { x, normed, gate, up, gated, .. } = scratch;
    linear_backward((gated, false), &mut gradients[index.down], x, &state.gated, weights[index.down], (c, i));
    swiglu_backward(gate, up, gated, &state.gate, &state.up);
    let input = &state.middle_normed;
    linear_backward((normed, false), &mut gradients[index.gate], gate, input, weights[index.gate], (i, c));
    linear_backward((normed, true), &mut gradients[index.up], up, input, weights[index.up], (i, c));
    let (norm, eps) = (index.post_norm, config.rms_norm_eps as f32);
    rms_norm_backward((x, true), &mut gradients[norm], normed, &state.middle, weights[norm], eps);
}

/// m = x + O·attention(norm x): the gradient of m, in `scratch.x`, becomes that of x.
#[expect(clippy::too_many_arguments, reason = "a block's backward reads everything there is")]
fn attention_part_backward(
    config: &ModelConfig,
    rotary: &RotaryTable,
    weights: &[&[f32]],
    index: BlockIndex,
    state: &BlockState,
    scratch: &mut Scratch,
    gradients: &mut [Vec<f32>],
    shape: AttentionShape,
) {
    let (c, q, k) = (config.hidden_size, config.query_size(), config.key_value_size());
    let eps = config.rms_norm_eps as f32;
    let Scratch { x, normed, mixed, q: dq, k: dk, v: dv, q_raw, k_raw, .. } = scratch;
    linear_backward((mixed, false), &mut gradients[index.o], x, &state.mixed, weights[index.o], (c, q));
    let inputs = (state.q.as_slice(), state.k.as_slice(), state.v.as_slice());
    attention_backward((dq, dk, dv), mixed, &state.mixed, &state.log_sums, inputs, shape);
    rotate(dq, rotary, shape.length, shape.heads, true);
    rotate(dk, rotary, shape.length, shape.key_value_heads, true);
    let (dq, dk): (&[f32], &[f32]) = match index.qk_norm {
        Some((q_norm, k_norm)) => {
            let (q_scale, k_scale) = (weights[q_norm], weights[k_norm]);
            rms_norm_backward((q_raw, false), &mut gradients[q_norm], dq, &state.q_raw, q_scale, eps);
            rms_norm_backward((k_raw, false), &mut gradients[k_norm], dk, &state.k_raw, k_scale, eps);
            (q_raw, k_raw)
        }
        None => (dq, dk),
    };
    let input = &state.normed;
    linear_backward((normed, false), &mut gradients[index.q], dq, input, weights[index.q], (q, c));
    linear_backward((normed, true), &mut gradients[index.k], dk, input, weights[index.k], (k, c));
    linear_backward((normed, true), &mut gradients[index.v], dv, input, weights[index.v], (k, c));
    let norm = index.input_norm;
    rms_norm_backward((x, true), &mut gradients[norm], normed, &state.x, weights[norm], eps);
}

/// y = x·Wᵀ: dx = dy·W, or added when `accumulate`; dW += dyᵀ·x.
fn linear_backward(
    (x_grad, accumulate): (&mut [f32], bool),
    weight_grad: &mut [f32],
    y_grad: &[f32],
    x: &[f32],
    weight: &[f32],
    (out, input): (usize, usize),
) {
    let tokens = x.len() / input;
    let dy_to = Matrix::new(y_grad, tokens, out);
    let w_oi = Matrix::new(weight, out, input);
    multiply(MatrixMut::new(x_grad, tokens, input), dy_to, w_oi, 1.0, accumulate, true);
    let x_ti = Matrix::new(x, tokens, input);
    multiply(MatrixMut::new(weight_grad, out, input), dy_to.transposed(), x_ti, 1.0, true, true);
}
