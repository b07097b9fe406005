use candlewick_model::{ModelConfig, kernels::AttentionShape};

/// Buffers of a pass. C is the hidden size, Q and K the widths of all query and key heads, I the intermediate size.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// What each block leaves for its backward pass; a single one when there is none.
    pub(super) blocks: Vec<BlockState>,
    /// The last block's output `[tokens, C]`.
    pub(super) last: Vec<f32>,
    /// Its norm `[tokens, C]`.
    pub(super) last_normed: Vec<f32>,
    pub(super) gradients: Scratch,
}

/// What a block's forward pass leaves, `[tokens, …]` each.
#[derive(Debug, Default)]
pub(super) struct BlockState {
    /// The block's input, C.
    pub(super) x: Vec<f32>,
    /// Its norm, C.
    pub(super) normed: Vec<f32>,
    /// Queries and keys before their norms, Q and K; empty without such norms.
    pub(super) q_raw: Vec<f32>,
    pub(super) k_raw: Vec<f32>,
    /// Turned queries and keys, and values: Q, K, K.
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    /// Attention's output, Q, and its `[B, H, T]` logarithms.
    pub(super) mixed: Vec<f32>,
    pub(super) log_sums: Vec<f32>,
    /// After attention's residual, C, and its norm, C.
    pub(super) middle: Vec<f32>,
    pub(super) middle_normed: Vec<f32>,
    /// The feed-forward part: I each.
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) gated: Vec<f32>,
}

/// Gradients on their way back, shared by all blocks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Of the residual stream, C.
    pub(super) x: Vec<f32>,
    /// Of a norm's output, C.
    pub(super) normed: Vec<f32>,
    /// Of attention's output and input.
    pub(super) mixed: Vec<f32>,
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) q_raw: Vec<f32>,
    pub(super) k_raw: Vec<f32>,
    /// Of the feed-forward part.
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) gated: Vec<f32>,
}

impl Workspace {
    /// Makes the buffers fit a micro-batch. Memory is only taken when they were never as large.
    pub(super) fn fit(&mut self, config: &ModelConfig, shape: AttentionShape, qk_norm: bool, backward: bool) {
        let tokens = shape.batch * shape.length;
        let [c, q, k, i] =
            [config.hidden_size, config.query_size(), config.key_value_size(), config.intermediate_size]
                .map(|width| tokens * width);
        let raw = |width: usize| if qk_norm { width } else { 0 };
        let states = if backward { config.num_hidden_layers } else { 1 };
        self.blocks.resize_with(states, BlockState::default);
        for state in &mut self.blocks {
            state.x.resize(c, 0.0);
            state.normed.resize(c, 0.0);
            state.q_raw.resize(raw(q), 0.0);
            state.k_raw.resize(raw(k), 0.0);
            state.q.resize(q, 0.0);
            state.k.resize(k, 0.0);
            state.v.resize(k, 0.0);
            state.mixed.resize(q, 0.0);
            state.log_sums.resize(tokens * shape.heads, 0.0);
            state.middle.resize(c, 0.0);
            state.middle_normed.resize(c, 0.0);
            state.gate.resize(i, 0.0);
            state.up.resize(i, 0.0);
            state.gated.resize(i, 0.0);
        }
        self.last.resize(c, 0.0);
        self.last_normed.resize(c, 0.0);
        if backward {
            let gradients = &mut self.gradients;
            gradients.x.resize(c, 0.0);
            gradients.normed.resize(c, 0.0);
            gradients.mixed.resize(q, 0.0);
            gradients.q.resize(q, 0.0);
            gradients.k.resize(k, 0.0);
            gradients.v.resize(k, 0.0);
            gradients.q_raw.resize(raw(q), 0.0);
            gradients.k_raw.resize(raw(k), 0.0);
            gradients.gate.resize(i, 0.0);
            gradients.up.resize(i, 0.0);
            gradients.gated.resize(i, 0.0);
        }
    }
}
