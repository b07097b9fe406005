//! One micro-batch through the model and back, written out once for every backend: no graph is recorded, everything has
//! its place in the plan, and gradients are added where they belong by the products that make them.

use crate::{
    TrainError,
    backend::{Backend, LossOptions, Write},
    plan::{BlockState, BlockWeights, Plan, Recompute, attention_shape},
};
use candlewick_model::{ModelConfig, kernels::AttentionShape, kernels::IGNORED_TARGET};

/// A micro-batch: row-major `rows × length`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MicroBatch<'a> {
    pub(crate) inputs: &'a [u32],
    pub(crate) targets: &'a [u32],
    pub(crate) length: usize,
}

/// A model's shape and its plan, and what of the gradients of the step at hand has been written.
#[derive(Debug)]
pub(crate) struct Step {
    config: ModelConfig,
    plan: Plan,
    /// Whether a micro-batch of this step has left its gradients.
    begun: bool,
    /// Whether the output matrix, which is the embedding when tied, has a gradient already.
    head_begun: bool,
}

impl Step {
    pub(crate) fn new(config: &ModelConfig, plan: Plan) -> Self {
        Self { config: config.clone(), plan, begun: false, head_begun: false }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Begins a step or an evaluation: no loss, and gradients that the first micro-batch replaces.
    pub(crate) fn begin(&mut self, backend: &mut dyn Backend) -> Result<(), TrainError> {
        (self.begun, self.head_begun) = (false, false);
        backend.begin()
    }

    /// Adds Σ nats of the counted targets to the backend's sum; nothing is kept.
    pub(crate) fn evaluate(
        &mut self,
        backend: &mut dyn Backend,
        batch: MicroBatch<'_>,
    ) -> Result<(), TrainError> {
        self.forward(backend, batch, false)?;
        let loss = LossOptions { scale: 1.0, z_loss: 0.0, gradient: false };
        self.head(backend, batch, loss)
    }

    /// Adds Σ nats of the counted targets to the backend's sum, and the gradient of `loss` to the gradients.
    pub(crate) fn forward_backward(
        &mut self,
        backend: &mut dyn Backend,
        batch: MicroBatch<'_>,
        loss: LossOptions,
    ) -> Result<(), TrainError> {
        self.forward(backend, batch, true)?;
        self.head(backend, batch, loss)?;
        self.backward(backend, batch)
    }

    /// Logits behind token `at` of one sequence, one a vocabulary entry; what a step has left is lost.
    pub(crate) fn logits(
        &self,
        backend: &mut dyn Backend,
        inputs: &[u32],
        at: usize,
        into: &mut [f32],
    ) -> Result<(), TrainError> {
        let targets = vec![IGNORED_TARGET; inputs.len()];
        self.forward(backend, MicroBatch { inputs, targets: &targets, length: inputs.len() }, false)?;
        let (plan, width) = (&self.plan, self.config.hidden_size);
        let x = plan.last_normed.part(at * width, width);
        backend.linear(plan.logits, x, plan.head, 1)?;
        backend.values(plan.logits.part(0, into.len()), into)
    }

    fn shape(&self, batch: MicroBatch<'_>) -> AttentionShape {
        attention_shape(&self.config, batch.inputs.len() / batch.length, batch.length)
    }

    /// A block is m = x + O·attention(norm x), then m + down·(silu(gate)·up)(norm m). Each sum is made together with the
    /// norm that follows it, the last norm included.
    fn forward(
        &self,
        backend: &mut dyn Backend,
        batch: MicroBatch<'_>,
        keep: bool,
    ) -> Result<(), TrainError> {
        let Self { config, plan, .. } = self;
        let (tokens, eps, shape) = (batch.inputs.len(), config.rms_norm_eps, self.shape(batch));
        // Without a way back, one block's buffers serve all.
        let state = |layer: usize| plan.blocks[if keep { layer } else { 0 }];
        let delta = plan.delta;
        backend.load(batch.inputs, batch.targets)?;
        let BlockState { residual, normed, rstd, .. } = state(0);
        backend.embedding(residual, plan.embedding, tokens)?;
        backend.rms_norm(normed, rstd, residual, plan.weights[0].input_norm, tokens, eps)?;
        for (layer, block) in plan.weights.iter().enumerate() {
            let BlockState { residual, normed, qkv, qk, mixed, log_sums, .. } = state(layer);
            backend.linear(qkv, normed, block.qkv, tokens)?;
            backend.qk_norm_rope(qk, qkv, block.qk_norm, shape, eps)?;
            backend.attention(mixed, log_sums, qk, qkv, shape)?;
            backend.linear(delta, mixed, block.o, tokens)?;

            let BlockState { middle, middle_normed, middle_rstd, gate_up, gated, .. } = state(layer);
            let norm = block.post_norm;
            backend.add_rms_norm(middle, middle_normed, middle_rstd, residual, delta, norm, tokens, eps)?;
            backend.linear(gate_up, middle_normed, block.gate_up, tokens)?;
            backend.swiglu(gated, gate_up, tokens, config.intermediate_size)?;
            backend.linear(delta, gated, block.down, tokens)?;

            let (sum, normed, rstd, norm) = match plan.weights.get(layer + 1) {
                Some(next) => {
                    let BlockState { residual, normed, rstd, .. } = state(layer + 1);
                    (residual, normed, rstd, next.input_norm)
                }
                None => (plan.last, plan.last_normed, plan.last_rstd, plan.norm),
            };
            backend.add_rms_norm(sum, normed, rstd, middle, delta, norm, tokens, eps)?;
        }
        Ok(())
    }

    /// The output matrix and the loss, a chunk of tokens at a time, so that the logits of a micro-batch never exist; with
    /// a gradient, dx = dz·W goes to `d_normed`, and dW = dzᵀ·x to the matrix. In an evaluation, a chunk without a counted
    /// target costs nothing.
    fn head(
        &mut self,
        backend: &mut dyn Backend,
        batch: MicroBatch<'_>,
        loss: LossOptions,
    ) -> Result<(), TrainError> {
        let Self { config, plan, head_begun, .. } = self;
        let (width, head, rows) = (config.hidden_size, plan.head, plan.logit_rows());
        for (chunk, targets) in batch.targets.chunks(rows).enumerate() {
            let (first, tokens) = (chunk * rows, targets.len());
            let counts = targets.iter().any(|&target| target != IGNORED_TARGET);
            // A chunk's gradient of x has to be written even where nothing counts: its logits' gradients are zero.
            if !counts && !loss.gradient {
                continue;
            }
            let x = plan.last_normed.part(first * width, tokens * width);
            backend.linear(plan.logits, x, head, tokens)?;
            backend.cross_entropy(plan.logits, first, tokens, head.rows, loss)?;
            if loss.gradient {
                let dx = plan.d_normed.part(first * width, tokens * width);
                backend.linear_backward_input(dx, plan.logits, head, tokens)?;
                backend.linear_backward_weight(head, plan.logits, x, tokens, write(*head_begun))?;
                *head_begun = true;
            }
        }
        Ok(())
    }

    fn backward(&mut self, backend: &mut dyn Backend, batch: MicroBatch<'_>) -> Result<(), TrainError> {
        let (tokens, shape) = (batch.inputs.len(), self.shape(batch));
        let Self { config, plan, begun, .. } = &*self;
        let add = write(*begun);
        let dx = plan.d_residual;
        backend.rms_norm_backward(
            (dx, Write::Replace),
            (plan.norm, add),
            plan.d_normed,
            plan.last,
            plan.last_rstd,
            tokens,
        )?;
        for (block, state) in plan.weights.iter().zip(&plan.blocks).rev() {
            feed_forward_backward(config, plan, backend, (block, state), tokens, add)?;
            attention_backward(config, plan, backend, (block, state), shape, add)?;
        }
        // When tied, the output matrix has left its gradient there, in this step for certain.
        let tied = plan.head == plan.embedding;
        backend.embedding_backward(plan.embedding, dx, tokens, write(*begun || tied))?;
        self.begun = true;
        Ok(())
    }
}

/// What a product does to a gradient that was `begun` by another one of this step.
fn write(begun: bool) -> Write {
    if begun { Write::Add } else { Write::Replace }
}

/// The gradient of a block's output, in `d_residual`, becomes that of what attention left.
fn feed_forward_backward(
    config: &ModelConfig,
    plan: &Plan,
    backend: &mut dyn Backend,
    (block, state): (&BlockWeights, &BlockState),
    tokens: usize,
    add: Write,
) -> Result<(), TrainError> {
    let (eps, again) = (config.rms_norm_eps, plan.shape.recompute == Recompute::NormsAndSwiglu);
    let BlockState { middle, middle_normed, middle_rstd, gate_up, gated, .. } = *state;
    let (dx, d_gated, d_gate_up) = (plan.d_residual, plan.d_gated, plan.d_gate_up);
    backend.linear_backward_input(d_gated, dx, block.down, tokens)?;
    let remade = again.then_some(gated);
    backend.swiglu_backward(d_gate_up, remade, d_gated, gate_up, tokens, config.intermediate_size)?;
    backend.linear_backward_weight(block.down, dx, gated, tokens, add)?;
    if again {
        backend.rms_norm(middle_normed, middle_rstd, middle, block.post_norm, tokens, eps)?;
    }
    backend.linear_backward_weight(block.gate_up, d_gate_up, middle_normed, tokens, add)?;
    backend.linear_backward_input(plan.d_normed, d_gate_up, block.gate_up, tokens)?;
    let (dx, norm) = ((dx, Write::Add), (block.post_norm, add));
    backend.rms_norm_backward(dx, norm, plan.d_normed, middle, middle_rstd, tokens)
}

/// The gradient of what attention left, in `d_residual`, becomes that of the block's input.
fn attention_backward(
    config: &ModelConfig,
    plan: &Plan,
    backend: &mut dyn Backend,
    (block, state): (&BlockWeights, &BlockState),
    shape: AttentionShape,
    add: Write,
) -> Result<(), TrainError> {
    let (eps, again) = (config.rms_norm_eps, plan.shape.recompute == Recompute::NormsAndSwiglu);
    let tokens = shape.batch * shape.length;
    let BlockState { residual, normed, rstd, qkv, qk, mixed, log_sums, .. } = *state;
    let (dx, d_mixed, d_qkv) = (plan.d_residual, plan.d_mixed, plan.d_qkv);
    backend.linear_backward_input(d_mixed, dx, block.o, tokens)?;
    backend.linear_backward_weight(block.o, dx, mixed, tokens, add)?;
    if again {
        backend.qk_norm_rope(qk, qkv, block.qk_norm, shape, eps)?;
    }
    backend.attention_backward(d_qkv, d_mixed, mixed, log_sums, qk, qkv, shape)?;
    backend.qk_norm_rope_backward(d_qkv, qkv, block.qk_norm, shape, eps, add)?;
    if again {
        backend.rms_norm(normed, rstd, residual, block.input_norm, tokens, eps)?;
    }
    backend.linear_backward_weight(block.qkv, d_qkv, normed, tokens, add)?;
    backend.linear_backward_input(plan.d_normed, d_qkv, block.qkv, tokens)?;
    backend.rms_norm_backward(
        (dx, Write::Add),
        (block.input_norm, add),
        plan.d_normed,
        residual,
        rstd,
        tokens,
    )
}
