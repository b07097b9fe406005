//! Where everything that a step touches lies, decided from the shape alone before anything is allocated.
//!
//! Offsets and lengths count values. Activations and f32 values are two address spaces, so that one plan serves
//! activations of four bytes (the CPU) and of two (CUDA, bf16). A backend turns each into one allocation, or both.

use crate::Moments;
use candlewick_model::{Architecture, FlatLayout, ModelConfig, kernels::AttentionShape};
use serde::{Deserialize, Serialize};

/// Every buffer begins at a multiple of so many values: 256 bytes of f32, 128 of bf16, so that vector accesses and
/// products are aligned whatever came before.
const ALIGNMENT: usize = 64;

/// Activations: values in the backend's compute type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// First value, in the space of activations.
    pub offset: usize,
    /// Number of values.
    pub len: usize,
}

/// Values that are f32 on every backend: gradients, logarithms of sums, reciprocal roots, losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct F32 {
    /// First value, in the space of f32 values.
    pub offset: usize,
    /// Number of values.
    pub len: usize,
}

/// A part of the flat parameters (see [`FlatLayout`]); its gradient, moments and master copy lie at the same offset of
/// theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// First value.
    pub offset: usize,
    /// Number of values.
    pub len: usize,
}

/// A weight as a row-major matrix `[rows, columns]`, that is `[out, in]`, or `[V, C]` for the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// Its values.
    pub weight: Weight,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
}

impl Act {
    /// `len` values from value `first` of this.
    ///
    /// # Panics
    /// When they are not inside.
    pub fn part(self, first: usize, len: usize) -> Self {
        assert!(first + len <= self.len, "{first} and {len} values of {}", self.len);
        Self { offset: self.offset + first, len }
    }
}

impl F32 {
    /// `len` values from value `first` of this.
    ///
    /// # Panics
    /// When they are not inside.
    pub fn part(self, first: usize, len: usize) -> Self {
        assert!(first + len <= self.len, "{first} and {len} values of {}", self.len);
        Self { offset: self.offset + first, len }
    }
}

/// What is made again on the way back instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: the fastest.
    #[default]
    None,
    /// Outputs of norms, turned queries and keys, SwiGLU's product: cheap to make, and 37 % of what a block of the quickstart leaves.
    NormsAndSwiglu,
}

/// What decides the plan besides the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanShape {
    /// Sequences of a micro-batch, at most.
    pub rows: usize,
    /// Tokens a sequence.
    pub length: usize,
    /// What is made again.
    pub recompute: Recompute,
    /// Type of the optimizer's moments.
    pub moments: Moments,
}

/// What a backend needs of the plan: a function of model, shape and machine, never of what is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Values of [`Plan::scratch`]: the most that any one kernel uses; kernels run one after the other.
    pub scratch: usize,
    /// Tokens whose logits exist at a time.
    pub logit_rows: usize,
}

/// What a block leaves for its way back, `[tokens, …]` each.
///
/// C is the hidden size, Q and K the widths of all query heads and of all key heads, I the intermediate size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockState {
    /// The residual stream that comes in, C.
    pub residual: Act,
    /// Its norm, C; shared by all blocks when recomputed.
    pub normed: Act,
    /// The norm's reciprocal root mean square, a token.
    pub rstd: F32,
    /// Queries, keys and values as projected, Q + 2K a token: q, then k, then v.
    pub qkv: Act,
    /// Normed and turned queries and keys, Q + K a token; shared when recomputed.
    pub qk: Act,
    /// Attention's output, Q.
    pub mixed: Act,
    /// Logarithm of each row's sum of exponentials, `[B, H, T]`.
    pub log_sums: F32,
    /// The residual stream after attention, C.
    pub middle: Act,
    /// Its norm, C; shared when recomputed.
    pub middle_normed: Act,
    /// That norm's reciprocal root mean square, a token.
    pub middle_rstd: F32,
    /// Gate and up as projected, 2I a token: gate, then up.
    pub gate_up: Act,
    /// silu(gate) · up, I; shared when recomputed.
    pub gated: Act,
}

/// A block's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockWeights {
    /// Scale of the norm before attention, `[C]`.
    pub input_norm: Weight,
    /// Projections to queries, keys and values, one matrix `[Q + 2K, C]`.
    pub qkv: Matrix,
    /// Scales of the norms of query and key heads, `[D]` each, in Qwen3.
    pub qk_norm: Option<[Weight; 2]>,
    /// Projection of attention's output, `[C, Q]`.
    pub o: Matrix,
    /// Scale of the norm before the feed-forward part, `[C]`.
    pub post_norm: Weight,
    /// Projections to gate and up, one matrix `[2I, C]`.
    pub gate_up: Matrix,
    /// Projection back, `[C, I]`.
    pub down: Matrix,
}

/// The whole plan. Public, so that backends and tests can read it; nothing may be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it was made for.
    pub shape: PlanShape,
    /// Values in the space of activations.
    pub activations: usize,
    /// Values in the space of f32.
    pub f32_values: usize,
    /// Values of the flat parameters, and of each of their moments.
    pub parameters: usize,
    /// Of these, the first so many decay.
    pub decayed: usize,
    /// Gradients of all parameters, in their flat order.
    pub gradients: F32,

    /// What each block leaves.
    pub blocks: Vec<BlockState>,
    /// The last residual stream, C.
    pub last: Act,
    /// Its norm, C.
    pub last_normed: Act,
    /// That norm's reciprocal root mean square.
    pub last_rstd: F32,
    /// What a block's part adds to the residual stream, C.
    pub delta: Act,
    /// Logits of [`Needs::logit_rows`] tokens, V each. Shares memory with the four below.
    pub logits: Act,
    /// Nats of each token.
    pub losses: F32,

    /// Gradient of the residual stream, C.
    pub d_residual: Act,
    /// Gradient of a norm's output, C. Shares memory with `delta`.
    pub d_normed: Act,
    /// Gradient of attention's output, Q.
    pub d_mixed: Act,
    /// Gradient of queries, keys and values, Q + 2K.
    pub d_qkv: Act,
    /// Gradient of the feed-forward product, I.
    pub d_gated: Act,
    /// Gradient of gate and up, 2I.
    pub d_gate_up: Act,
    /// For the backend's kernels.
    pub scratch: F32,

    /// The token embedding, `[V, C]`.
    pub embedding: Matrix,
    /// Each block's parameters.
    pub weights: Vec<BlockWeights>,
    /// Scale of the last norm, `[C]`.
    pub norm: Weight,
    /// The output matrix, `[V, C]`: the embedding when tied.
    pub head: Matrix,
}

/// Hands out spans of one address space.
#[derive(Default)]
struct Space {
    len: usize,
}

impl Space {
    fn take(&mut self, len: usize) -> usize {
        let offset = self.len;
        self.len = (offset + len).next_multiple_of(ALIGNMENT);
        offset
    }

    fn act(&mut self, len: usize) -> Act {
        Act { offset: self.take(len), len }
    }

    fn f32(&mut self, len: usize) -> F32 {
        F32 { offset: self.take(len), len }
    }
}

impl Plan {
    /// The plan for a model and a shape, with what the backend needs.
    pub fn new(model: &ModelConfig, shape: PlanShape, needs: Needs) -> Self {
        let tokens = shape.rows * shape.length;
        let [c, q, k, i] =
            [model.hidden_size, model.query_size(), model.key_value_size(), model.intermediate_size]
                .map(|width| tokens * width);
        let layout = FlatLayout::new(model);
        let (mut acts, mut floats) = (Space::default(), Space::default());

        let gradients = floats.f32(layout.len());
        // Kept by each block, or one for all of them.
        let again = shape.recompute == Recompute::NormsAndSwiglu;
        let mut shared: Option<[Act; 4]> = None;
        let mut remade = |acts: &mut Space| match shared {
            Some(shared) if again => shared,
            _ => *shared.insert([c, q + k, c, i].map(|len| acts.act(len))),
        };
        let blocks = (0..model.num_hidden_layers)
            .map(|_| {
                let [normed, qk, middle_normed, gated] = remade(&mut acts);
                BlockState {
                    residual: acts.act(c),
                    normed,
                    rstd: floats.f32(tokens),
                    qkv: acts.act(q + 2 * k),
                    qk,
                    mixed: acts.act(q),
                    log_sums: floats.f32(tokens * model.num_attention_heads),
                    middle: acts.act(c),
                    middle_normed,
                    middle_rstd: floats.f32(tokens),
                    gate_up: acts.act(2 * i),
                    gated,
                }
            })
            .collect();
        let delta = acts.act(c);
        let (last, last_normed, d_residual) = (acts.act(c), acts.act(c), acts.act(c));

        // The logits are gone before the first block's gradients begin: they lie in the same place.
        let logits = needs.logit_rows.min(tokens) * model.vocab_size;
        let mut back = Space { len: acts.len };
        let [d_mixed, d_qkv, d_gated, d_gate_up] = [q, q + 2 * k, i, 2 * i].map(|len| back.act(len));
        let logits = acts.act(logits);
        acts.len = acts.len.max(back.len);

        let weight = |name: &str| layout.range(name);
        let whole = |name: &str| {
            let range = weight(name);
            Weight { offset: range.start, len: range.len() }
        };
        let matrix = |first: &str, last: &str, columns: usize| {
            let (first, last) = (weight(first), weight(last));
            let weight = Weight { offset: first.start, len: last.end - first.start };
            Matrix { weight, rows: weight.len / columns, columns }
        };
        let width = model.hidden_size;
        let weights = (0..model.num_hidden_layers)
            .map(|layer| {
                let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
                let whole = |rest: &str| whole(&name(rest));
                let matrix = |first: &str, last: &str, columns| matrix(&name(first), &name(last), columns);
                BlockWeights {
                    input_norm: whole("input_layernorm"),
                    qkv: matrix("self_attn.q_proj", "self_attn.v_proj", width),
                    qk_norm: match model.architecture {
                        Architecture::Qwen3 => Some(["self_attn.q_norm", "self_attn.k_norm"].map(whole)),
                        Architecture::Llama => None,
                    },
                    o: matrix("self_attn.o_proj", "self_attn.o_proj", model.query_size()),
                    post_norm: whole("post_attention_layernorm"),
                    gate_up: matrix("mlp.gate_proj", "mlp.up_proj", width),
                    down: matrix("mlp.down_proj", "mlp.down_proj", model.intermediate_size),
                }
            })
            .collect();
        let head = if model.tie_word_embeddings { EMBEDDING } else { "lm_head.weight" };

        Self {
            shape,
            parameters: layout.len(),
            decayed: layout.decayed(),
            gradients,
            blocks,
            last,
            last_normed,
            last_rstd: floats.f32(tokens),
            delta,
            logits,
            losses: floats.f32(tokens),
            d_residual,
            d_normed: delta,
            d_mixed,
            d_qkv,
            d_gated,
            d_gate_up,
            scratch: floats.f32(needs.scratch),
            embedding: matrix(EMBEDDING, EMBEDDING, width),
            weights,
            norm: whole("model.norm.weight"),
            head: matrix(head, head, width),
            activations: acts.len,
            f32_values: floats.len,
        }
    }

    /// The gradient of a weight.
    pub fn gradient(&self, weight: Weight) -> F32 {
        self.gradients.part(weight.offset, weight.len)
    }

    /// Tokens whose logits fit at a time.
    pub fn logit_rows(&self) -> usize {
        self.logits.len / self.head.rows
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";

/// The attention of a micro-batch of `rows` sequences of `length` tokens.
pub fn attention_shape(model: &ModelConfig, rows: usize, length: usize) -> AttentionShape {
    AttentionShape {
        batch: rows,
        length,
        heads: model.num_attention_heads,
        key_value_heads: model.num_key_value_heads,
        head_dim: model.head_dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(tie_word_embeddings: bool) -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings,
            vocab_size: 50,
            max_position_embeddings: 32,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    fn plan(recompute: Recompute) -> Plan {
        let shape = PlanShape { rows: 3, length: 7, recompute, moments: Moments::Float32 };
        Plan::new(&model(true), shape, Needs { scratch: 100, logit_rows: 16 })
    }

    /// Spans of activations that hold values at the same time during a step.
    fn alive(plan: &Plan) -> Vec<Act> {
        let mut acts = vec![plan.last, plan.last_normed, plan.delta, plan.d_residual];
        acts.extend([plan.d_mixed, plan.d_qkv, plan.d_gated, plan.d_gate_up]);
        for state in &plan.blocks {
            acts.extend([state.residual, state.qkv, state.mixed, state.middle, state.gate_up]);
            acts.extend([state.normed, state.qk, state.middle_normed, state.gated]);
        }
        acts
    }

    #[test]
    fn what_is_alive_at_a_time_does_not_overlap_and_lies_inside() {
        for recompute in [Recompute::None, Recompute::NormsAndSwiglu] {
            let plan = plan(recompute);
            let mut acts = alive(&plan);
            acts.sort_by_key(|act| act.offset);
            acts.dedup();
            assert!(acts.windows(2).all(|pair| pair[0].offset + pair[0].len <= pair[1].offset));
            assert!(acts.iter().all(|act| act.offset.is_multiple_of(ALIGNMENT)));
            let end = acts.last().map_or(0, |act| act.offset + act.len);
            assert!(end.max(plan.logits.offset + plan.logits.len) <= plan.activations);
            // Logits may lie over gradients of blocks only.
            let before = [plan.last_normed, plan.d_residual, plan.d_normed];
            assert!(before.iter().all(|act| act.offset + act.len <= plan.logits.offset));
        }
    }

    #[test]
    fn recomputing_shares_what_is_made_again() {
        let (kept, remade) = (plan(Recompute::None), plan(Recompute::NormsAndSwiglu));
        let [first, second] = [remade.blocks[0], remade.blocks[1]];
        assert_eq!(
            [first.normed, first.qk, first.middle_normed, first.gated],
            [second.normed, second.qk, second.middle_normed, second.gated]
        );
        let values = |plan: &Plan| {
            let state = plan.blocks[0];
            [state.normed, state.qk, state.middle_normed, state.gated]
                .map(|act| act.len.next_multiple_of(ALIGNMENT))
                .iter()
                .sum::<usize>()
        };
        assert_eq!(kept.activations - remade.activations, 2 * values(&kept));
    }

    #[test]
    fn weights_are_packed_matrices_and_the_head_is_the_embedding_when_tied() {
        let plan = plan(Recompute::None);
        let block = plan.weights[1];
        assert_eq!((block.qkv.rows, block.qkv.columns), (32 + 2 * 16, 24));
        assert_eq!((block.gate_up.rows, block.gate_up.columns), (80, 24));
        assert_eq!((block.o.rows, block.o.columns), (24, 32));
        assert_eq!((block.down.rows, block.down.columns), (24, 40));
        assert_eq!(plan.head, plan.embedding);
        let untied = Plan::new(&model(false), plan.shape, Needs { scratch: 0, logit_rows: 4 });
        assert_eq!(untied.head.weight.len, untied.embedding.weight.len);
        assert_ne!(untied.head, untied.embedding);
        assert_eq!(plan.logit_rows(), 16);
        assert_eq!(plan.gradient(block.o.weight).offset, plan.gradients.offset + block.o.weight.offset);
    }
}
