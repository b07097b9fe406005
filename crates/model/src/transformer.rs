use crate::{
    Architecture, ModelConfig, ModelError, Parameters, StoredWeights,
    kernels::{AttentionShape, RotaryTable},
    ops,
};
use candle_core::{Device, Tensor};
use std::{path::Path, sync::Arc};

/// A decoder with its parameters, and its forward pass and loss in operations that candle differentiates.
///
/// A block is x + O(attention(norm(x))), then x + down(silu(gate)·up) of norm(x); queries and keys are turned by
/// their position, in Qwen3 after an RMSNorm over each head.
#[derive(Debug, Clone)]
pub struct Transformer {
    config: ModelConfig,
    parameters: Parameters,
    rotary: Arc<RotaryTable>,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// scale · Σ nats: what to call `backward` on.
    pub scaled: Tensor,
    /// Σ nats over the counted targets.
    pub nats: f64,
}

impl Transformer {
    /// A model with fresh parameters.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `OUT_OF_MEMORY_HOST`.
    pub fn new(config: ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let parameters = Parameters::new(&config, seed, device)?;
        Ok(Self::from_parts(config, parameters))
    }

    /// A model from a directory with `config.json` and its weights (see [`StoredWeights`]).
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `CHECKPOINT_CORRUPT`.
    pub fn load(directory: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = ModelConfig::read(directory)?;
        let parameters = Parameters::load(&config, &StoredWeights::open(directory)?, device)?;
        Ok(Self::from_parts(config, parameters))
    }

    /// A model of this shape with the weights that another directory holds.
    ///
    /// # Errors
    /// As [`Transformer::check_weights_of`]; `CHECKPOINT_CORRUPT` for values that cannot be read.
    pub fn with_weights_of(
        config: ModelConfig,
        directory: &Path,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let stored = Self::check_weights_of(&config, directory)?;
        let parameters = Parameters::load(&config, &stored, device)?;
        Ok(Self::from_parts(config, parameters))
    }

    /// Holds the weights in a directory, and what its `config.json` says about their use, against a shape. No value is
    /// read.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the tensor with both shapes, or the key; `CHECKPOINT_CORRUPT`.
    pub fn check_weights_of(config: &ModelConfig, directory: &Path) -> Result<StoredWeights, ModelError> {
        config.validate()?;
        let stored = StoredWeights::open(directory)?;
        stored.expect(config)?;
        config.expect_meaning(&ModelConfig::read(directory)?, directory)?;
        Ok(stored)
    }

    fn from_parts(config: ModelConfig, parameters: Parameters) -> Self {
        let rotary =
            Arc::new(RotaryTable::new(config.max_position_embeddings, config.head_dim, config.rope_theta));
        Self { config, parameters, rotary }
    }

    /// Writes `config.json` and `model.safetensors`, synced, as `transformers` loads them.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        self.parameters.save(&directory.join("model.safetensors"))?;
        let config = self.config.to_hf_json();
        crate::write_synced(&directory.join("config.json"), config.as_bytes()).map(drop)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The parameters, trainable in place.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The rotations of all positions.
    pub fn rotary(&self) -> &Arc<RotaryTable> {
        &self.rotary
    }

    /// Logits `[B, T, V]` for token ids `[B, T]` u32; differentiable in every parameter.
    ///
    /// # Errors
    /// When T exceeds `max_position_embeddings` or an id the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        Ok(ops::linear(&self.hidden(ids, true)?, &self.head(true)?)?)
    }

    /// The loss of `targets` (row-major `[B, T]`, `0xFFFFFFFF` counts for nothing), to be differentiated.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn loss(&self, ids: &Tensor, targets: &[u32], scale: f64) -> Result<Loss, ModelError> {
        let loss = ops::head_loss(&self.hidden(ids, true)?, &self.head(true)?, targets, scale, 0.0)?;
        Ok(Loss { scaled: loss.scaled, nats: loss.nats })
    }

    /// Σ nats of `targets`, without anything kept for gradients.
    ///
    /// # Errors
    /// As [`Transformer::forward`].
    pub fn nats(&self, ids: &Tensor, targets: &[u32]) -> Result<f64, ModelError> {
        Ok(ops::head_loss(&self.hidden(ids, false)?, &self.head(false)?, targets, 1.0, 0.0)?.nats)
    }

    fn parameter(&self, name: &str, tracked: bool) -> Result<Tensor, ModelError> {
        self.parameters.parameter(name, tracked)
    }

    /// Name of the output matrix: the embedding's when tied.
    pub fn head_name(&self) -> &'static str {
        if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" }
    }

    fn head(&self, tracked: bool) -> Result<Tensor, ModelError> {
        self.parameter(self.head_name(), tracked)
    }

    /// What the output matrix is applied to, `[B, T, C]`.
    fn hidden(&self, ids: &Tensor, tracked: bool) -> Result<Tensor, ModelError> {
        let config = &self.config;
        let (batch, length) = ids.dims2()?;
        if length > config.max_position_embeddings {
            return Err(ModelError::config(
                format!(
                    "a sequence of {length} tokens exceeds max_position_embeddings ({})",
                    config.max_position_embeddings
                ),
                format!(
                    "set model.max_position_embeddings to {length} or more, or shorten data.sequence_length"
                ),
            ));
        }
        let eps = config.rms_norm_eps;
        let shape = AttentionShape {
            batch,
            length,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        let mut x = ops::embedding(&self.parameter("model.embed_tokens.weight", tracked)?, ids)?;
        for layer in 0..config.num_hidden_layers {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            let weight = |rest: &str| self.parameter(&name(rest), tracked);
            let packed = |first: &str, last: &str| {
                self.parameters.matrix((&name(first), &name(last)), config.hidden_size, tracked)
            };
            let normed = ops::rms_norm(&x, &weight("input_layernorm")?, eps)?;
            let qkv = ops::linear(&normed, &packed("self_attn.q_proj", "self_attn.v_proj")?)?;
            let norms = match config.architecture {
                Architecture::Qwen3 => Some((weight("self_attn.q_norm")?, weight("self_attn.k_norm")?)),
                Architecture::Llama => None,
            };
            let qk = ops::qk_norm_rope(&qkv, norms.as_ref(), &self.rotary, shape, eps)?;
            let mixed = ops::attention(&qk, &qkv, shape)?;
            x = (x + ops::linear(&mixed, &weight("self_attn.o_proj")?)?)?;

            let normed = ops::rms_norm(&x, &weight("post_attention_layernorm")?, eps)?;
            let gate_up = ops::linear(&normed, &packed("mlp.gate_proj", "mlp.up_proj")?)?;
            x = (x + ops::linear(&ops::swiglu(&gate_up)?, &weight("mlp.down_proj")?)?)?;
        }
        Ok(ops::rms_norm(&x, &self.parameter("model.norm.weight", tracked)?, eps)?)
    }
}
