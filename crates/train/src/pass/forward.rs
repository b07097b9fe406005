use super::{MicroBatch, Pass, weights::BlockIndex, workspace::BlockState};
use candlewick_model::{
    ModelConfig,
    kernels::{
        AttentionShape, Matrix, MatrixMut, RotaryTable, attention_forward, embedding_forward,
        head_cross_entropy, multiply, rms_norm_forward, rotate, swiglu_forward,
    },
};
use std::mem::swap;

impl Pass {
    /// Σ nats over the counted targets; nothing is kept but the buffers.
    pub(crate) fn nats(&mut self, weights: &[&[f32]], batch: MicroBatch<'_>) -> f64 {
        self.forward(weights, batch, false);
        let width = self.config.hidden_size;
        head_cross_entropy(&self.workspace.last_normed, weights[self.index.head], batch.targets, width, None)
    }

    /// Fills the workspace up to the last norm.
    pub(super) fn forward(&mut self, weights: &[&[f32]], batch: MicroBatch<'_>, backward: bool) {
        let Self { config, index, rotary, workspace, .. } = self;
        let shape = attention_shape(config, batch);
        workspace.fit(config, shape, index.blocks[0].qk_norm.is_some(), backward);
        let states = &mut workspace.blocks;
        embedding_forward(&mut states[0].x, weights[index.embedding], batch.inputs, config.hidden_size);
        for (layer, block) in index.blocks.iter().enumerate() {
            let at = if backward { layer } else { 0 };
            block_forward(config, rotary, weights, *block, &mut states[at], &mut workspace.last, shape);
            // The output is the next block's input; the buffers change places.
            if layer + 1 < index.blocks.len() {
                let next = if backward { layer + 1 } else { 0 };
                swap(&mut states[next].x, &mut workspace.last);
            }
        }
        let eps = config.rms_norm_eps as f32;
        rms_norm_forward(&mut workspace.last_normed, &workspace.last, weights[index.norm], eps);
    }
}

pub(super) fn attention_shape(config: &ModelConfig, batch: MicroBatch<'_>) -> AttentionShape {
    AttentionShape {
        batch: batch.inputs.len() / batch.length,
        length: batch.length,
        heads: config.num_attention_heads,
        key_value_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

/// m = x + O·attention(norm x); output = m + down·(silu(gate)·up)(norm m).
fn block_forward(
    config: &ModelConfig,
    rotary: &RotaryTable,
    weights: &[&[f32]],
    index: BlockIndex,
    state: &mut BlockState,
    output: &mut [f32],
    shape: AttentionShape,
) {
    let (c, q, k, i) =
        (config.hidden_size, config.query_size(), config.key_value_size(), config.intermediate_size);
    let eps = config.rms_norm_eps as f32;
    let BlockState { x, normed, .. } = state;
    rms_norm_forward(normed, x, weights[index.input_norm], eps);
    match index.qk_norm {
        Some((q_norm, k_norm)) => {
            linear(&mut state.q_raw, normed, weights[index.q], (q, c), false);
            linear(&mut state.k_raw, normed, weights[index.k], (k, c), false);
            rms_norm_forward(&mut state.q, &state.q_raw, weights[q_norm], eps);
            rms_norm_forward(&mut state.k, &state.k_raw, weights[k_norm], eps);
        }
        None => {
            linear(&mut state.q, normed, weights[index.q], (q, c), false);
            linear(&mut state.k, normed, weights[index.k], (k, c), false);
        }
    }
    linear(&mut state.v, normed, weights[index.v], (k, c), false);
    rotate(&mut state.q, rotary, shape.length, shape.heads, false);
    rotate(&mut state.k, rotary, shape.length, shape.key_value_heads, false);
    attention_forward(&mut state.mixed, &mut state.log_sums, (&state.q, &state.k, &state.v), shape);
    state.middle.copy_from_slice(x);
    linear(&mut state.middle, &state.mixed, weights[index.o], (c, q), true);

    rms_norm_forward(&mut state.middle_normed, &state.middle, weights[index.post_norm], eps);
    linear(&mut state.gate, &state.middle_normed, weights[index.gate], (i, c), false);
    linear(&mut state.up, &state.middle_normed, weights[index.up], (i, c), false);
    swiglu_forward(&mut state.gated, &state.gate, &state.up);
    output.copy_from_slice(&state.middle);
    linear(output, &state.gated, weights[index.down], (c, i), true);
}

/// y = x·Wᵀ, or y += x·Wᵀ when `accumulate`: `weight` `[out, in]`.
fn linear(y: &mut [f32], x: &[f32], weight: &[f32], (out, input): (usize, usize), accumulate: bool) {
    let tokens = x.len() / input;
    let (x_ti, w_oi) = (Matrix::new(x, tokens, input), Matrix::new(weight, out, input));
    multiply(MatrixMut::new(y, tokens, out), x_ti, w_oi.transposed(), 1.0, accumulate, true);
}
