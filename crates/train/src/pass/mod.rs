//! One micro-batch through the model and back, written out: no graph is recorded, every buffer is used again, and
//! gradients are added where they belong by the products that make them.

mod backward;
mod forward;
mod weights;
mod workspace;

use candlewick_model::{ModelConfig, ModelError, Transformer, kernels::RotaryTable};
use std::sync::Arc;
use weights::Index;
pub(crate) use workspace::Lengths;
use workspace::Workspace;

/// The model's shape, where its parameters are, and the buffers of a micro-batch.
#[derive(Debug)]
pub(crate) struct Pass {
    config: ModelConfig,
    index: Index,
    rotary: Arc<RotaryTable>,
    workspace: Workspace,
}

/// A micro-batch: row-major `rows × length`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MicroBatch<'a> {
    pub(crate) inputs: &'a [u32],
    pub(crate) targets: &'a [u32],
    pub(crate) length: usize,
}

impl Pass {
    /// A pass for `transformer`; its buffers grow at first use and then stay.
    pub(crate) fn new(transformer: &Transformer) -> Result<Self, ModelError> {
        Ok(Self {
            config: transformer.config().clone(),
            index: Index::new(transformer)?,
            rotary: transformer.rotary().clone(),
            workspace: Workspace::default(),
        })
    }
}
