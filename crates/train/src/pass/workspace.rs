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

/// Values of a micro-batch's buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    c: usize,
    q: usize,
    k: usize,
    i: usize,
    /// Queries and keys before their norms; 0 without such norms.
    q_raw: usize,
    k_raw: usize,
    log_sums: usize,
}

impl Lengths {
    pub(crate) fn new(config: &ModelConfig, shape: AttentionShape, qk_norm: bool) -> Self {
        let tokens = shape.batch * shape.length;
        let [c, q, k, i] =
            [config.hidden_size, config.query_size(), config.key_value_size(), config.intermediate_size]
                .map(|width| tokens * width);
        let raw = |width: usize| if qk_norm { width } else { 0 };
        Self { c, q, k, i, q_raw: raw(q), k_raw: raw(k), log_sums: tokens * shape.heads }
    }

    /// Values of all buffers for so many blocks, and for the way back.
    pub(crate) fn values(self, blocks: usize, backward: bool) -> usize {
        let sum = |buffers: &[(&mut Vec<f32>, usize)]| buffers.iter().map(|(_, len)| len).sum::<usize>();
        let back = if backward { sum(&Scratch::default().buffers(self)) } else { 0 };
        blocks * sum(&BlockState::default().buffers(self)) + 2 * self.c + back
    }
}

impl BlockState {
    /// Every buffer and its length.
    fn buffers(&mut self, n: Lengths) -> [(&mut Vec<f32>, usize); 14] {
        [
            (&mut self.x, n.c),
            (&mut self.normed, n.c),
            (&mut self.q_raw, n.q_raw),
            (&mut self.k_raw, n.k_raw),
            (&mut self.q, n.q),
            (&mut self.k, n.k),
            (&mut self.v, n.k),
            (&mut self.mixed, n.q),
            (&mut self.log_sums, n.log_sums),
            (&mut self.middle, n.c),
            (&mut self.middle_normed, n.c),
            (&mut self.gate, n.i),
            (&mut self.up, n.i),
            (&mut self.gated, n.i),
        ]
    }
}

impl Scratch {
    /// Every buffer and its length.
    fn buffers(&mut self, n: Lengths) -> [(&mut Vec<f32>, usize); 11] {
        [
            (&mut self.x, n.c),
            (&mut self.normed, n.c),
            (&mut self.mixed, n.q),
            (&mut self.q, n.q),
            (&mut self.k, n.k),
            (&mut self.v, n.k),
            (&mut self.q_raw, n.q_raw),
            (&mut self.k_raw, n.k_raw),
            (&mut self.gate, n.i),
            (&mut self.up, n.i),
            (&mut self.gated, n.i),
        ]
    }
}

impl Workspace {
    /// Makes the buffers fit a micro-batch. Memory is only taken when they were never as large.
    pub(super) fn fit(&mut self, config: &ModelConfig, shape: AttentionShape, qk_norm: bool, backward: bool) {
        let lengths = Lengths::new(config, shape, qk_norm);
        let states = if backward { config.num_hidden_layers } else { 1 };
        self.blocks.resize_with(states, BlockState::default);
        for (buffer, len) in self.blocks.iter_mut().flat_map(|state| state.buffers(lengths)) {
            buffer.resize(len, 0.0);
        }
        self.last.resize(lengths.c, 0.0);
        self.last_normed.resize(lengths.c, 0.0);
        if backward {
            for (buffer, len) in self.gradients.buffers(lengths) {
                buffer.resize(len, 0.0);
            }
        }
    }
}
