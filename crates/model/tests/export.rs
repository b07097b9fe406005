//! Exported directories, and weights as others save them: shards, f16, bf16.

use candle_core::Device;
use candlewick_model::{
    Architecture, ExportOptions, ModelConfig, StoredType, StoredWeights, Transformer, export_model,
};
use std::path::Path;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        vocab_size: 128,
        max_position_embeddings: 32,
        bos_token_id: None,
        eos_token_id: Some(3),
    }
}

fn saved(config: ModelConfig) -> (tempfile::TempDir, Transformer) {
    let directory = tempfile::tempdir().unwrap();
    let model = Transformer::new(config, 5, &Device::Cpu).unwrap();
    model.save(directory.path()).unwrap();
    (directory, model)
}

fn options(dtype: StoredType) -> ExportOptions {
    ExportOptions { dtype, vocab_size: 100, eos_token_id: 7, shard_bytes: None }
}

fn values(model: &Transformer, name: &str) -> Vec<f32> {
    model.parameters().get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn padding_of_the_vocabulary_is_left_out_and_the_rest_is_the_same() {
    let (from, model) = saved(config());
    let to = tempfile::tempdir().unwrap();
    let exported = export_model(from.path(), to.path(), &options(StoredType::F32)).unwrap();
    assert_eq!((exported.config.vocab_size, exported.config.eos_token_id), (100, Some(7)));
    let again = Transformer::load(to.path(), &Device::Cpu).unwrap();
    assert_eq!(again.config(), &exported.config);
    for parameter in again.parameters().iter() {
        let ours = values(&again, &parameter.spec.name);
        assert_eq!(ours, values(&model, &parameter.spec.name)[..ours.len()], "{}", parameter.spec.name);
    }
    let learned: usize = again.parameters().iter().map(|parameter| parameter.spec.len()).sum();
    assert_eq!((exported.parameters, exported.bytes), (learned as u64, 4 * learned as u64));
}

#[test]
fn narrow_types_round_to_the_nearest() {
    let (from, model) = saved(config());
    for (dtype, ulp) in [(StoredType::Bf16, 2f32.powi(-8)), (StoredType::F16, 2f32.powi(-11))] {
        let to = tempfile::tempdir().unwrap();
        export_model(from.path(), to.path(), &options(dtype)).unwrap();
        let again = Transformer::load(to.path(), &Device::Cpu).unwrap();
        let name = "model.layers.1.mlp.down_proj.weight";
        let (narrow, wide) = (values(&again, name), values(&model, name));
        assert_ne!(narrow, wide);
        for (a, b) in narrow.iter().zip(&wide) {
            // Below f16's smallest normal number the step is a constant.
            assert!((a - b).abs() <= b.abs() * ulp + 2f32.powi(-25), "{dtype:?}: {a} for {b}");
        }
    }
}

#[test]
fn a_value_beyond_f16_is_refused_by_name() {
    let (from, model) = saved(config());
    let norm = model.parameters().get("model.norm.weight").unwrap();
    model.parameters().set("model.norm.weight", &(norm * 1e5).unwrap()).unwrap();
    model.save(from.path()).unwrap();
    let to = tempfile::tempdir().unwrap();
    let error = export_model(from.path(), to.path(), &options(StoredType::F16)).unwrap_err();
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.message.contains("model.norm.weight") && error.hint.contains("bf16"), "{error:?}");
    export_model(from.path(), to.path(), &options(StoredType::Bf16)).unwrap();
}

#[test]
fn shards_hold_every_tensor_once_and_load_as_one() {
    let (from, model) = saved(config());
    let to = tempfile::tempdir().unwrap();
    let small = ExportOptions { vocab_size: 128, shard_bytes: Some(8_000), ..options(StoredType::F32) };
    let exported = export_model(from.path(), to.path(), &small).unwrap();
    assert!(exported.files.len() > 2, "{:?}", exported.files);
    let sizes = exported.files.iter().map(|name| std::fs::metadata(to.path().join(name)).unwrap().len());
    assert!(sizes.sum::<u64>() > exported.bytes);
    let again = Transformer::load(to.path(), &Device::Cpu).unwrap();
    for parameter in model.parameters().iter() {
        let name = &parameter.spec.name;
        assert_eq!(values(&again, name), values(&model, name));
    }
    std::fs::remove_file(to.path().join(&exported.files[1])).unwrap();
    let error = Transformer::load(to.path(), &Device::Cpu).unwrap_err();
    assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains(&exported.files[1]), "{error:?}");
}

#[test]
fn a_file_cut_short_is_named_before_a_tensor_is_read() {
    let (from, _) = saved(config());
    let path = from.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        let error = StoredWeights::open(from.path()).unwrap_err();
        assert!(
            error.code == "CHECKPOINT_CORRUPT" && error.message.contains("model.safetensors"),
            "{error:?}"
        );
    }
}

#[test]
fn an_index_cannot_lead_out_of_its_directory() {
    let (from, _) = saved(config());
    std::fs::create_dir(from.path().join("inner")).unwrap();
    let inner = from.path().join("inner");
    let index = r#"{"weight_map": {"model.norm.weight": "../model.safetensors"}}"#;
    std::fs::write(inner.join("model.safetensors.index.json"), index).unwrap();
    let error = StoredWeights::open(&inner).unwrap_err();
    assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains("no file name"), "{error:?}");
}

fn start_from(config: ModelConfig, directory: &Path) -> candlewick_model::ModelError {
    Transformer::with_weights_of(config, directory, &Device::Cpu).unwrap_err()
}

#[test]
fn a_model_starts_from_the_weights_of_another_and_a_misfit_is_named() {
    let (from, model) = saved(config());
    let begun = Transformer::with_weights_of(config(), from.path(), &Device::Cpu).unwrap();
    assert_eq!(values(&begun, "lm_head.weight"), values(&model, "lm_head.weight"));

    let error = start_from(ModelConfig { intermediate_size: 32, ..config() }, from.path());
    assert_eq!(error.code, "CONFIG_INVALID");
    for part in ["model.layers.0.mlp.gate_proj.weight", "[24, 16]", "[32, 16]"] {
        assert!(error.message.contains(part), "{error:?}");
    }
    let error = start_from(ModelConfig { vocab_size: 256, ..config() }, from.path());
    for part in ["model.embed_tokens.weight", "[128, 16]", "[256, 16]"] {
        assert!(error.message.contains(part), "{error:?}");
    }
    let error = start_from(ModelConfig { num_hidden_layers: 1, ..config() }, from.path());
    assert!(error.message.contains("model.layers.1."), "{error:?}");
    let error = start_from(ModelConfig { num_hidden_layers: 3, ..config() }, from.path());
    assert!(error.message.contains("no tensor model.layers.2."), "{error:?}");
    let error = start_from(ModelConfig { rope_theta: 1e6, ..config() }, from.path());
    assert!(error.message.contains("rope_theta") && error.hint.contains("10000"), "{error:?}");
}

#[test]
fn a_tied_model_that_was_saved_with_its_head_loads() {
    let (from, model) = saved(ModelConfig { vocab_size: 100, ..config() });
    let tied = ModelConfig { tie_word_embeddings: true, ..model.config().clone() };
    std::fs::write(from.path().join("config.json"), tied.to_hf_json()).unwrap();
    let to = tempfile::tempdir().unwrap();
    export_model(from.path(), to.path(), &options(StoredType::F32)).unwrap();
    assert!(StoredWeights::open(to.path()).unwrap().shape("lm_head.weight").is_none());
    Transformer::load(to.path(), &Device::Cpu).unwrap();
}
