//! One step's logits, loss and gradients against transformers', from fixtures that
//! `scripts/fixtures/transformers_step.py` made.

use candle_core::{Device, Tensor};
use candlewick_model::{Decoder, ModelConfig, ModelError, Transformer, open_weights};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("transformers_{name}.safetensors"))
}

struct Fixture {
    model: Transformer,
    ids: Vec<u32>,
    rows: usize,
    targets: Vec<u32>,
    loss: f32,
    logits: Vec<f32>,
    grads: Vec<(String, Vec<f32>)>,
    _directory: tempfile::TempDir,
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    assert_eq!(view.dtype(), Dtype::F32);
    view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn integers(view: &TensorView<'_>) -> Vec<u32> {
    assert_eq!(view.dtype(), Dtype::I32);
    let ids = view.data().as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word));
    // −100 is torch's mark of a target that does not count.
    ids.map(|id| if id == -100 { u32::MAX } else { id as u32 }).collect()
}

/// The fixture, its model loaded the way a user's is: from a directory with `config.json` and `model.safetensors`.
fn read(name: &str) -> Fixture {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let config_json = header.metadata().as_ref().unwrap()["config"].clone();
    let config = ModelConfig::from_hf_json(&config_json).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let weights = config.parameters().into_iter().map(|spec| {
        let view = file.tensor(&spec.name).unwrap();
        (spec.name, view)
    });
    std::fs::write(directory.path().join("config.json"), config_json).unwrap();
    safetensors::serialize_to_file(weights, None, &directory.path().join("model.safetensors")).unwrap();
    let model = Transformer::load(directory.path(), &Device::Cpu).unwrap();

    let grads = config.parameters().into_iter().map(|spec| {
        let view = file.tensor(&format!("grad.{}", spec.name)).unwrap();
        (spec.name, floats(&view))
    });
    Fixture {
        ids: integers(&file.tensor("ids").unwrap()),
        rows: file.tensor("ids").unwrap().shape()[0],
        targets: integers(&file.tensor("targets").unwrap()),
        loss: floats(&file.tensor("loss").unwrap())[0],
        logits: floats(&file.tensor("logits").unwrap()),
        grads: grads.collect(),
        model,
        _directory: directory,
    }
}

const NAMES: [&str; 4] = ["qwen3_tied", "qwen3_untied", "llama_tied", "llama_untied"];

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn loss_and_gradients_are_those_of_transformers() {
    for name in NAMES {
        let fixture = read(name);
        let ids =
            Tensor::from_slice(&fixture.ids, (fixture.rows, fixture.ids.len() / fixture.rows), &Device::Cpu)
                .unwrap();
        let counted = fixture.targets.iter().filter(|&&target| target != u32::MAX).count() as f64;
        let loss = fixture.model.loss(&ids, &fixture.targets, 1.0 / counted).unwrap();
        assert!(
            (loss.nats / counted - f64::from(fixture.loss)).abs() < 1e-4,
            "{name}: {}",
            loss.nats / counted
        );

        let logits = fixture.model.forward(&ids).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let difference = largest_difference(&logits, &fixture.logits);
        assert!(difference < 5e-5, "{name}: logits differ by {difference:e}");

        let grads = loss.scaled.backward().unwrap();
        for (parameter, expected) in &fixture.grads {
            let found = fixture.model.parameters().gradient(&grads, parameter).unwrap().unwrap();
            let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let difference = largest_difference(&found, expected);
            assert!(difference < 1e-4, "{name}: the gradient of {parameter} differs by {difference:e}");
        }
    }
}

#[test]
fn cached_decoding_gives_the_logits_of_transformers() {
    for name in NAMES {
        let fixture = read(name);
        let length = fixture.ids.len() / fixture.rows;
        let vocabulary = fixture.model.config().vocab_size;
        // All at once, one by one, and a prompt followed by single tokens.
        for prompt in [length, 1, 5] {
            let mut decoder = Decoder::new(&fixture.model).unwrap();
            let mut logits = decoder.read(&fixture.ids[..prompt]).unwrap();
            for at in prompt..=length {
                let expected = &fixture.logits[(at - 1) * vocabulary..at * vocabulary];
                let difference = largest_difference(&logits, expected);
                assert!(difference < 1e-4, "{name}: {difference:e} after {at} tokens");
                if at < length {
                    logits = decoder.read(&fixture.ids[at..at + 1]).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_saved_model_holds_the_same_tensors() {
    for name in NAMES {
        let fixture = read(name);
        let directory = tempfile::tempdir().unwrap();
        fixture.model.save(directory.path()).unwrap();
        let mut file = open_weights(&directory.path().join("model.safetensors")).unwrap();
        assert_eq!(file.metadata("format").unwrap(), "pt");
        for parameter in fixture.model.parameters().iter() {
            let stored = file.take(&parameter.spec.name, &parameter.spec.shape).unwrap();
            let mut values = Vec::new();
            let mut append = |_: usize, first: usize, some: &[f32]| -> Result<(), ModelError> {
                assert_eq!(first, values.len());
                values.extend_from_slice(some);
                Ok(())
            };
            file.read(&[stored], &mut append).unwrap();
            assert_eq!(values, parameter.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        file.expect_empty().unwrap();
        let again = Transformer::load(directory.path(), &Device::Cpu).unwrap();
        assert_eq!(again.config(), fixture.model.config());
    }
}
