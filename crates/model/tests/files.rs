//! Failures of the disk, and of the files on it.

use candle_core::Device;
use candlewick_model::{Architecture, ModelConfig, Transformer};
use std::path::Path;

fn model() -> Transformer {
    let config = ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        vocab_size: 16,
        max_position_embeddings: 8,
        bos_token_id: None,
        eos_token_id: Some(3),
    };
    Transformer::new(config, 1, &Device::Cpu).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_has_a_code_of_its_own() {
    for file in ["model.safetensors", "config.json"] {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join(file)).unwrap();
        let error = model().save(directory.path()).unwrap_err();
        assert_eq!(error.code, "DISK_FULL", "{error:?}");
        assert!(error.message.contains(file) && error.hint.contains("free some space"));
    }
}

#[test]
fn a_directory_that_is_not_there_cannot_be_written() {
    let error = model().save(Path::new("/nowhere/at/all")).unwrap_err();
    assert_eq!(error.code, "NOT_WRITABLE");
}

#[test]
fn a_model_directory_without_its_parts_names_the_missing_one() {
    let directory = tempfile::tempdir().unwrap();
    let load = || Transformer::load(directory.path(), &Device::Cpu).unwrap_err();
    let error = load();
    assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains("config.json"), "{error:?}");
    std::fs::write(directory.path().join("config.json"), model().config().to_hf_json()).unwrap();
    let error = load();
    assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains("model.safetensors"), "{error:?}");
}

#[test]
fn weights_of_another_shape_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    model().save(directory.path()).unwrap();
    let wider = ModelConfig { intermediate_size: 12, ..model().config().clone() };
    std::fs::write(directory.path().join("config.json"), wider.to_hf_json()).unwrap();
    let error = Transformer::load(directory.path(), &Device::Cpu).unwrap_err();
    assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains("mlp.gate_proj"), "{error:?}");
}

#[test]
fn a_seed_makes_the_same_weights_and_residual_projections_start_smaller() {
    let bits = |seed| {
        let model = Transformer::new(model().config().clone(), seed, &Device::Cpu).unwrap();
        let values = model.parameters().iter().flat_map(|parameter| {
            parameter.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits)
        });
        values.collect::<Vec<u32>>()
    };
    assert_eq!(bits(1), bits(1));
    assert_ne!(bits(1), bits(2));

    let wide = ModelConfig { hidden_size: 64, num_hidden_layers: 8, ..model().config().clone() };
    let model = Transformer::new(wide, 1, &Device::Cpu).unwrap();
    let std = |name: &str| {
        let values = model.parameters().get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
    };
    assert!((std("model.embed_tokens.weight") / 0.02 - 1.0).abs() < 0.1);
    assert!((std("model.layers.3.mlp.down_proj.weight") / (0.02 / 4.0) - 1.0).abs() < 0.1);
    assert_eq!(std("model.norm.weight"), 1.0);
}
