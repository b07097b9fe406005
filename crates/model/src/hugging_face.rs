use crate::{Architecture, ModelConfig, ModelError, config::INITIALIZER_RANGE};
use serde_json::{Map, Value, json};
use std::path::Path;

impl ModelConfig {
    /// The `config.json` that `transformers` reads beside `model.safetensors`.
    pub fn to_hf_json(&self) -> String {
        let (class, model_type) = match self.architecture {
            Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
        };
        let mut value = json!({
            "architectures": [class],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": INITIALIZER_RANGE,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        let own = match self.architecture {
            Architecture::Qwen3 => json!({
                "max_window_layers": self.num_hidden_layers,
                "sliding_window": null,
                "use_sliding_window": false,
            }),
            Architecture::Llama => json!({"mlp_bias": false, "pretraining_tp": 1}),
        };
        if let (Value::Object(all), Value::Object(own)) = (&mut value, own) {
            all.extend(own);
        }
        format!("{value:#}\n")
    }

    /// Reads the `config.json` of a model directory.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when there is none, and those of [`ModelConfig::from_hf_json`].
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join("config.json");
        let text =
            std::fs::read_to_string(&path).map_err(|error| ModelError::from_io(&error, "read", &path))?;
        Self::from_hf_json(&text)
    }

    /// What no shape shows: how the weights of `directory`, whose configuration is `theirs`, are to be used.
    pub(crate) fn expect_meaning(&self, theirs: &Self, directory: &Path) -> Result<(), ModelError> {
        let keys: [(&str, Value, Value); 5] = [
            ("architecture", json!(self.architecture), json!(theirs.architecture)),
            ("num_attention_heads", json!(self.num_attention_heads), json!(theirs.num_attention_heads)),
            ("rope_theta", json!(self.rope_theta), json!(theirs.rope_theta)),
            ("rms_norm_eps", json!(self.rms_norm_eps), json!(theirs.rms_norm_eps)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings), json!(theirs.tie_word_embeddings)),
        ];
        match keys.into_iter().find(|(_, ours, theirs)| ours != theirs) {
            None => Ok(()),
            Some((key, ours, theirs)) => Err(ModelError::config(
                format!("model.{key} is {ours} in the configuration and {theirs} in {}", directory.display()),
                format!("set model.{key} to {theirs}"),
            )),
        }
    }

    /// Reads a `config.json` of `transformers`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when it is not one, is of another family, or asks for something that is not supported
    /// (biases, other activations, scaled or windowed attention).
    pub fn from_hf_json(text: &str) -> Result<Self, ModelError> {
        let value: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            ModelError::config(format!("config.json is not valid JSON: {error}"), "export the model again")
        })?;
        let model_type = value.get("model_type").and_then(Value::as_str).unwrap_or("");
        let architecture = match model_type {
            "qwen3" => Architecture::Qwen3,
            "llama" => Architecture::Llama,
            other => {
                return Err(ModelError::config(
                    format!("config.json has model_type {other:?}"),
                    "candlewick loads qwen3 and llama models",
                ));
            }
        };
        refuse_unsupported(&value)?;
        let heads = size(&value, "num_attention_heads")?;
        let hidden_size = size(&value, "hidden_size")?;
        let config = Self {
            architecture,
            hidden_size,
            intermediate_size: size(&value, "intermediate_size")?,
            num_hidden_layers: size(&value, "num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: optional_size(&value, "num_key_value_heads")?.unwrap_or(heads),
            head_dim: optional_size(&value, "head_dim")?.unwrap_or(match architecture {
                Architecture::Qwen3 => 128,
                Architecture::Llama => hidden_size / heads.max(1),
            }),
            // transformers 5 moved it into rope_parameters.
            rope_theta: number(&value, "rope_theta")
                .or_else(|| value.get("rope_parameters")?.get("rope_theta")?.as_f64())
                .unwrap_or(10_000.0),
            rms_norm_eps: number(&value, "rms_norm_eps").unwrap_or(1e-6),
            tie_word_embeddings: value.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            vocab_size: size(&value, "vocab_size")?,
            max_position_embeddings: size(&value, "max_position_embeddings")?,
            bos_token_id: token(&value, "bos_token_id"),
            eos_token_id: token(&value, "eos_token_id"),
        };
        config.validate()?;
        Ok(config)
    }
}

fn refuse_unsupported(value: &Map<String, Value>) -> Result<(), ModelError> {
    let is_set = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let rope = |key: &str| {
        let kind = value.get(key)?.get("rope_type").or_else(|| value.get(key)?.get("type"))?.as_str()?;
        (kind != "default").then(|| format!("{key} {kind:?}"))
    };
    let activation = value.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
    let found = rope("rope_scaling")
        .or_else(|| rope("rope_parameters"))
        .or_else(|| is_set("attention_bias").then(|| "attention_bias".into()))
        .or_else(|| is_set("mlp_bias").then(|| "mlp_bias".into()))
        .or_else(|| is_set("use_sliding_window").then(|| "use_sliding_window".into()))
        .or_else(|| (activation != "silu").then(|| format!("hidden_act {activation:?}")));
    match found {
        None => Ok(()),
        Some(what) => Err(ModelError::config(
            format!("config.json asks for {what}, which is not supported"),
            "use a model with plain rotary embeddings, SiLU, no biases and full attention",
        )),
    }
}

fn number(value: &Map<String, Value>, key: &str) -> Option<f64> {
    value.get(key)?.as_f64()
}

fn token(value: &Map<String, Value>, key: &str) -> Option<u32> {
    // Some models list several end tokens; the first is the one a text closes with.
    let found = value.get(key)?;
    let first = found.as_array().and_then(|list| list.first()).unwrap_or(found);
    first.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn optional_size(value: &Map<String, Value>, key: &str) -> Result<Option<usize>, ModelError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => found.as_u64().and_then(|n| usize::try_from(n).ok()).map(Some).ok_or_else(|| {
            ModelError::config(
                format!("config.json has {key} = {found}"),
                format!("set {key} to a whole number"),
            )
        }),
    }
}

fn size(value: &Map<String, Value>, key: &str) -> Result<usize, ModelError> {
    optional_size(value, key)?
        .ok_or_else(|| ModelError::config(format!("config.json has no {key}"), "export the model again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_the_round_trip() {
        for architecture in [Architecture::Qwen3, Architecture::Llama] {
            let config = ModelConfig {
                architecture,
                hidden_size: 64,
                intermediate_size: 96,
                num_hidden_layers: 2,
                num_attention_heads: 6,
                num_key_value_heads: 3,
                head_dim: 16,
                rope_theta: 500_000.0,
                rms_norm_eps: 1e-5,
                tie_word_embeddings: true,
                vocab_size: 300,
                max_position_embeddings: 128,
                bos_token_id: None,
                eos_token_id: Some(7),
            };
            assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()), Ok(config));
        }
    }

    #[test]
    fn unsupported_features_are_refused_by_name() {
        let base = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,
            "num_attention_heads":2,"vocab_size":9,"max_position_embeddings":4"#;
        assert!(ModelConfig::from_hf_json(&format!("{base}}}")).is_ok());
        for (extra, named) in [
            (r#""attention_bias":true"#, "attention_bias"),
            (r#""rope_scaling":{"rope_type":"llama3"}"#, "rope_scaling"),
            (r#""hidden_act":"gelu""#, "hidden_act"),
        ] {
            let error = ModelConfig::from_hf_json(&format!("{base},{extra}}}")).unwrap_err();
            assert_eq!(error.code, "CONFIG_INVALID");
            assert!(error.message.contains(named), "{error:?}");
        }
        assert!(ModelConfig::from_hf_json("{}").unwrap_err().message.contains("model_type"));
        assert!(ModelConfig::from_hf_json("{").unwrap_err().message.contains("JSON"));
    }
}
