use crate::{Init, ModelError, ParameterSpec};
use serde::{Deserialize, Serialize};

/// The family a model belongs to; it decides the class that `transformers` loads it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// RMSNorm of each query and key head before the rotation (`Qwen3ForCausalLM`).
    Qwen3,
    /// Without it (`LlamaForCausalLM`).
    Llama,
}

/// A decoder's shape, under Hugging Face's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Qwen3 or Llama.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads a block.
    pub num_attention_heads: usize,
    /// Key and value heads a block; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head; even, and independent of `hidden_size`.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Added to the mean square in every RMSNorm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Whether the output matrix is the embedding's.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Rows of the embedding: the tokenizer's size, padded.
    pub vocab_size: usize,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Token that opens a text, if there is one; only written to `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Token that closes a text, if known; only written to `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

/// Numbers of parameters. `total = embedding + blocks + head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ParameterCount {
    /// The token embedding.
    pub embedding: u64,
    /// All blocks and the last norm.
    pub blocks: u64,
    /// The output matrix; 0 when it is the embedding's.
    pub head: u64,
    /// Everything that is learned.
    pub total: u64,
}

impl ModelConfig {
    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together (and of all value heads).
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Checks everything that later code relies on.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, naming the key, for sizes of zero or beyond 2³¹, heads that do not divide, an odd
    /// `head_dim`, or a constant that is not a positive number.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(ModelError::config(
                    format!("model.{name} is 0"),
                    format!("set model.{name} to 1 or more"),
                ));
            }
            if size >= 1 << 31 {
                return Err(ModelError::config(
                    format!("model.{name} is {size}"),
                    format!("set model.{name} below 2147483648"),
                ));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let heads = self.num_attention_heads;
            let divisors: Vec<String> =
                (1..=heads).filter(|n| heads.is_multiple_of(*n)).map(|n| n.to_string()).collect();
            return Err(ModelError::config(
                format!(
                    "model.num_attention_heads ({heads}) is not a multiple of model.num_key_value_heads ({})",
                    self.num_key_value_heads
                ),
                format!("set model.num_key_value_heads to one of {}", divisors.join(", ")),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::config(
                format!("model.head_dim ({}) is odd, and rotary embeddings turn pairs", self.head_dim),
                format!("set model.head_dim to {} or {}", self.head_dim - 1, self.head_dim + 1),
            ));
        }
        for (name, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ModelError::config(
                    format!("model.{name} is {value}"),
                    format!("set model.{name} to a positive number"),
                ));
            }
        }
        let total = self.parameter_count().total;
        if total > LARGEST {
            return Err(ModelError::config(
                format!("the model would have {total} parameters"),
                "set model.hidden_size, model.num_hidden_layers or model.vocab_size to less",
            ));
        }
        Ok(())
    }

    /// Counts the parameters without making them.
    pub fn parameter_count(&self) -> ParameterCount {
        // 128 bits hold the product of any sizes that `validate` lets through; more than 64 is "too many" anyway.
        let [c, i, l, v, q, kv, d] = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.vocab_size,
            self.query_size(),
            self.key_value_size(),
            self.head_dim,
        ]
        .map(|size| size as u128);
        let qk_norm = if self.architecture == Architecture::Qwen3 { 2 * d } else { 0 };
        let block = 2 * c * q + 2 * c * kv + qk_norm + 3 * c * i + 2 * c;
        let head = if self.tie_word_embeddings { 0 } else { v * c };
        let [embedding, blocks, head, total] = [v * c, l * block + c, head, v * c + l * block + c + head]
            .map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        ParameterCount { embedding, blocks, head, total }
    }

    /// Every parameter in the order of the forward pass: Hugging Face's name, shape, initialisation and decay.
    ///
    /// Matrices are `[out, in]`. Matrices and embeddings decay, norms do not. Matrices that write into the
    /// residual stream start smaller by √(2 · layers), as in GPT-2.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let (c, i, d) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (q, kv) = (self.query_size(), self.key_value_size());
        let std = INITIALIZER_RANGE;
        let residual_std = std / (2.0 * self.num_hidden_layers as f64).sqrt();
        let matrix = |name: String, out: usize, input: usize, std: f64| ParameterSpec {
            name,
            shape: vec![out, input],
            init: Init::Normal { std },
            decay: true,
        };
        let norm = |name: String, size: usize| ParameterSpec {
            name,
            shape: vec![size],
            init: Init::One,
            decay: false,
        };

        let mut specs = vec![matrix("model.embed_tokens.weight".into(), self.vocab_size, c, std)];
        for layer in 0..self.num_hidden_layers {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            specs.push(norm(name("input_layernorm"), c));
            specs.push(matrix(name("self_attn.q_proj"), q, c, std));
            specs.push(matrix(name("self_attn.k_proj"), kv, c, std));
            specs.push(matrix(name("self_attn.v_proj"), kv, c, std));
            if self.architecture == Architecture::Qwen3 {
                specs.push(norm(name("self_attn.q_norm"), d));
                specs.push(norm(name("self_attn.k_norm"), d));
            }
            specs.push(matrix(name("self_attn.o_proj"), c, q, residual_std));
            specs.push(norm(name("post_attention_layernorm"), c));
            specs.push(matrix(name("mlp.gate_proj"), i, c, std));
            specs.push(matrix(name("mlp.up_proj"), i, c, std));
            specs.push(matrix(name("mlp.down_proj"), c, i, residual_std));
        }
        specs.push(norm("model.norm.weight".into(), c));
        if !self.tie_word_embeddings {
            specs.push(matrix("lm_head.weight".into(), self.vocab_size, c, std));
        }
        specs
    }
}

/// More parameters than any machine this runs on could hold; sums of sizes below it cannot overflow.
const LARGEST: u64 = 1 << 40;

/// Standard deviation of a fresh matrix, as GPT-2 and its successors have it.
pub(crate) const INITIALIZER_RANGE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 128,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 32,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            vocab_size: 4096,
            max_position_embeddings: 256,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    #[test]
    fn the_count_is_that_of_the_listed_parameters() {
        for architecture in [Architecture::Qwen3, Architecture::Llama] {
            for tie_word_embeddings in [true, false] {
                let config = ModelConfig { architecture, tie_word_embeddings, ..config() };
                let listed: usize =
                    config.parameters().iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
                assert_eq!(config.parameter_count().total, listed as u64);
            }
        }
    }

    #[test]
    fn each_bad_shape_names_its_key_and_a_way_out() {
        let huge =
            ModelConfig { hidden_size: 1 << 30, num_hidden_layers: 1 << 30, head_dim: 1 << 30, ..config() };
        let cases: [(&str, ModelConfig); 7] = [
            ("hidden_size", huge),
            ("num_key_value_heads", ModelConfig { num_key_value_heads: 3, ..config() }),
            ("head_dim", ModelConfig { head_dim: 31, ..config() }),
            ("hidden_size", ModelConfig { hidden_size: 0, ..config() }),
            ("vocab_size", ModelConfig { vocab_size: 0, ..config() }),
            ("rope_theta", ModelConfig { rope_theta: f64::NAN, ..config() }),
            ("rms_norm_eps", ModelConfig { rms_norm_eps: 0.0, ..config() }),
        ];
        assert_eq!(config().validate(), Ok(()));
        for (key, bad) in cases {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.code, "CONFIG_INVALID");
            assert!(error.hint.contains(key), "{error:?}");
        }
    }
}
