//! Gradients of the trained forward pass: complete, and those of candle's primitives and of finite differences.

mod plain;

use candle_core::{DType, Device, Tensor};
use candlewick_model::{Architecture, ModelConfig, Random, Transformer};
use plain::Plain;

const SEED: u64 = 20_260_731;

fn shapes() -> Vec<ModelConfig> {
    let mut shapes = Vec::new();
    for architecture in [Architecture::Qwen3, Architecture::Llama] {
        for tie_word_embeddings in [true, false] {
            for num_key_value_heads in [1, 2, 4] {
                shapes.push(ModelConfig {
                    architecture,
                    hidden_size: 20,
                    intermediate_size: 28,
                    num_hidden_layers: 2,
                    num_attention_heads: 4,
                    num_key_value_heads,
                    head_dim: 6,
                    rope_theta: 100.0,
                    rms_norm_eps: 1e-6,
                    tie_word_embeddings,
                    vocab_size: 37,
                    max_position_embeddings: 80,
                    bos_token_id: None,
                    eos_token_id: None,
                });
            }
        }
    }
    shapes
}

/// A model away from its initialisation, where every gradient has something to say.
fn model(config: &ModelConfig) -> Transformer {
    let model = Transformer::new(config.clone(), SEED, &Device::Cpu).unwrap();
    for parameter in model.parameters().iter() {
        let mut random = Random::stream(SEED, &format!("test {}", parameter.spec.name));
        let centre = if parameter.spec.decay { 0.0 } else { 1.0 };
        let values: Vec<f32> =
            (0..parameter.spec.len()).map(|_| (centre + 0.3 * random.normal()) as f32).collect();
        let values = Tensor::from_vec(values, parameter.spec.shape.as_slice(), &Device::Cpu).unwrap();
        model.parameters().set(&parameter.spec.name, &values).unwrap();
    }
    model
}

/// Inputs and targets, some of them ignored. 70 tokens are more than a block of attention and no multiple of one.
fn batch(config: &ModelConfig, rows: usize, length: usize) -> (Tensor, Vec<u32>) {
    let mut random = Random::stream(SEED, "batch");
    let mut draw = || (random.bits() % config.vocab_size as u64) as u32;
    let inputs: Vec<u32> = (0..rows * length).map(|_| draw()).collect();
    let targets = (0..rows * length).map(|i| if i % 7 == 3 { u32::MAX } else { draw() }).collect();
    (Tensor::from_vec(inputs, (rows, length), &Device::Cpu).unwrap(), targets)
}

fn counted(targets: &[u32]) -> f64 {
    targets.iter().filter(|&&target| target != u32::MAX).count() as f64
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖a − b‖₂ / ‖b‖₂.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn every_parameter_has_a_gradient() {
    for config in shapes() {
        // A fresh model: this is where training starts.
        let model = Transformer::new(config.clone(), SEED, &Device::Cpu).unwrap();
        let (ids, targets) = batch(&config, 2, 9);
        let from_loss =
            model.loss(&ids, &targets, 1.0 / counted(&targets)).unwrap().scaled.backward().unwrap();
        let from_logits = model.forward(&ids).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for parameter in model.parameters().iter() {
            for (path, store) in [("loss", &from_loss), ("logits", &from_logits)] {
                let grad = model.parameters().gradient(store, &parameter.spec.name).unwrap();
                let norm = grad.map(|grad| values(&grad).iter().map(|x| x * x).sum::<f64>().sqrt());
                assert!(
                    norm.is_some_and(|norm| norm > 0.0),
                    "{} by {path}: {norm:?}, {config:?}",
                    parameter.spec.name
                );
            }
        }
    }
}

#[test]
fn loss_and_gradients_are_those_of_primitive_operations_in_f64() {
    for config in shapes() {
        for (rows, length) in [(1, 1), (3, 13), (2, 70)] {
            let model = model(&config);
            let plain = Plain::new(&config, model.parameters(), DType::F64).unwrap();
            let (ids, targets) = batch(&config, rows, length);
            let loss = model.loss(&ids, &targets, 1.0 / counted(&targets)).unwrap();
            let expected = plain.loss(&ids, &targets).unwrap();
            let mean = loss.nats / counted(&targets);
            assert!((mean - values(&expected)[0]).abs() < 1e-5, "{mean} for {}", values(&expected)[0]);
            assert!((values(&loss.scaled)[0] - mean).abs() < 1e-6);
            assert_eq!(model.nats(&ids, &targets).unwrap(), loss.nats);

            let (grads, expected) = (loss.scaled.backward().unwrap(), expected.backward().unwrap());
            for parameter in model.parameters().iter() {
                let name = &parameter.spec.name;
                let (found, expected) = match (
                    model.parameters().gradient(&grads, name).unwrap(),
                    expected.get(plain.vars[name].as_tensor()),
                ) {
                    (Some(found), Some(expected)) => (values(&found), values(expected)),
                    (found, expected) => panic!("{name}: {found:?} {expected:?}"),
                };
                // One token attends to itself alone: queries and keys then have gradients of zero.
                if expected.iter().all(|x| x.abs() < 1e-12) {
                    assert!(length == 1 && found.iter().all(|x| x.abs() < 1e-6), "{name}");
                    continue;
                }
                let distance = distance(&found, &expected);
                assert!(distance < 1e-4, "{name}: {distance:e} at {rows}×{length}, {config:?}");
            }
        }
    }
}

#[test]
fn logits_are_those_of_primitive_operations() {
    for config in shapes() {
        let model = model(&config);
        let plain = Plain::new(&config, model.parameters(), DType::F64).unwrap();
        let (ids, _) = batch(&config, 2, 70);
        let distance =
            distance(&values(&model.forward(&ids).unwrap()), &values(&plain.forward(&ids).unwrap()));
        assert!(distance < 1e-5, "{distance:e}, {config:?}");
    }
}

/// The oracle itself, in f64, against (f(w + h) − f(w − h)) / 2h along a random direction in each parameter.
#[test]
fn gradients_are_those_of_finite_differences() {
    for config in shapes().into_iter().step_by(2) {
        let plain = Plain::new(&config, model(&config).parameters(), DType::F64).unwrap();
        let (ids, targets) = batch(&config, 2, 7);
        let grads = plain.loss(&ids, &targets).unwrap().backward().unwrap();
        for (name, var) in &plain.vars {
            let before = var.as_detached_tensor().copy().unwrap();
            let mut random = Random::stream(SEED, &format!("direction {name}"));
            let direction: Vec<f64> = (0..before.elem_count()).map(|_| random.normal()).collect();
            let step = Tensor::from_vec(direction.clone(), before.shape(), &Device::Cpu).unwrap();
            let loss_at = |h: f64| {
                var.set(&(&before + (&step * h).unwrap()).unwrap()).unwrap();
                values(&plain.loss(&ids, &targets).unwrap())[0]
            };
            let h = 1e-6;
            let measured = (loss_at(h) - loss_at(-h)) / (2.0 * h);
            var.set(&before).unwrap();
            let grad = values(grads.get(var.as_tensor()).unwrap());
            let expected: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
            assert!(
                (measured - expected).abs() < 1e-7 * (1.0 + expected.abs()),
                "{name}: {measured} for {expected}"
            );
        }
    }
}

#[test]
fn a_sequence_longer_than_the_model_is_refused() {
    let config = shapes().remove(0);
    let model = model(&config);
    let (ids, _) = batch(&config, 1, config.max_position_embeddings + 1);
    let error = model.forward(&ids).unwrap_err();
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.hint.contains("sequence_length"));
}
