//! The written-out step against the same model in candle's primitive operations, differentiated by candle in f64: whole
//! gradients, losses over many steps, and what generation computes from the same weights.

#[path = "../../model/tests/plain/mod.rs"]
mod plain;

use candle_core::{DType, Device as CandleDevice, Tensor};
use candlewick_feed::{Batch, IGNORED};
use candlewick_model::{Architecture, Decoder, ModelConfig, Random};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, Moments, OptimizerOptions, Recompute, Schedule, ScheduleKind,
    StepOutcome, TrainOptions,
};
use plain::Plain;

const SEED: u64 = 20_261_124;

fn options(model: ModelConfig, rows: usize, sequence_length: usize) -> TrainOptions {
    TrainOptions {
        model,
        sequence_length,
        micro_batch_size: rows,
        global_batch_size: rows,
        optimizer: OptimizerOptions {
            lr: 1e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            clip_grad_norm: Some(1.0),
            moments: Moments::Float32,
        },
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            warmup_steps: 5,
            final_lr_ratio: 0.1,
            decay_ratio: 0.2,
        },
        seed: SEED,
        device: Device::Cpu,
        init_from: None,
        threads: Some(2),
        z_loss: 0.0,
        recompute: Recompute::None,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
    }
}

fn model(architecture: Architecture, tie_word_embeddings: bool, heads: [usize; 2]) -> ModelConfig {
    ModelConfig {
        architecture,
        hidden_size: 20,
        intermediate_size: 28,
        num_hidden_layers: 2,
        num_attention_heads: heads[0],
        num_key_value_heads: heads[1],
        head_dim: 6,
        rope_theta: 100.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings,
        vocab_size: 37,
        max_position_embeddings: 150,
        bos_token_id: None,
        eos_token_id: None,
    }
}

/// Both architectures, tied and untied, query heads a key head 1 (every head its own), 2, 4, and one key head for all.
fn shapes() -> Vec<ModelConfig> {
    let mut shapes = Vec::new();
    for architecture in [Architecture::Qwen3, Architecture::Llama] {
        for tied in [true, false] {
            for heads in [[4, 4], [4, 2], [8, 2], [4, 1]] {
                shapes.push(model(architecture, tied, heads));
            }
        }
    }
    shapes
}

/// Weights away from their initialisation, where every gradient has something to say.
fn disturb(engine: &Engine, std: f64) {
    for parameter in engine.parameters().iter() {
        let mut random = Random::stream(SEED, &format!("test {}", parameter.spec.name));
        let centre = if parameter.spec.decay { 0.0 } else { 1.0 };
        let values: Vec<f32> =
            (0..parameter.spec.len()).map(|_| (centre + std * random.normal()) as f32).collect();
        let values = Tensor::from_vec(values, parameter.spec.shape.as_slice(), &CandleDevice::Cpu).unwrap();
        engine.parameters().set(&parameter.spec.name, &values).unwrap();
    }
}

fn batch(options: &TrainOptions, at: u64) -> Batch {
    let mut random = Random::stream(SEED + at, "batch");
    let (rows, length) = (options.global_batch_size, options.sequence_length);
    let vocabulary = options.model.vocab_size as u64;
    let mut draw = || (random.bits() % vocabulary) as u32;
    let inputs: Vec<u32> = (0..rows * length).map(|_| draw()).collect();
    let targets: Vec<u32> = (0..rows * length).map(|i| if i % 7 == 3 { IGNORED } else { draw() }).collect();
    let counted = targets.iter().filter(|&&target| target != IGNORED).count() as u64;
    Batch { inputs, targets, rows, sequence_length: length, counted }
}

fn ids(batch: &Batch) -> Tensor {
    Tensor::from_slice(&batch.inputs, (batch.rows, batch.sequence_length), &CandleDevice::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// ‖g − g₆₄‖₂ ≤ 1e-4 · ‖g₆₄‖₂ a tensor: two blocks of f32 sums lie between a weight and the loss.
#[test]
fn every_gradient_is_candles_in_f64() {
    let mut worst = (0.0, String::new());
    for config in shapes() {
        // 70 and 131 are no multiples of attention's blocks; 524 tokens are more than a chunk of logits.
        for (rows, length) in [(1, 1), (3, 13), (1, 70), (4, 131)] {
            let options = options(config.clone(), rows, length);
            let mut engine = Engine::new(&options).unwrap();
            disturb(&engine, 0.3);
            let plain = Plain::new(&config, engine.parameters(), DType::F64).unwrap();
            let batch = batch(&options, 0);
            let expected_loss = plain.loss(&ids(&batch), &batch.targets).unwrap();
            let expected = expected_loss.backward().unwrap();
            let nats = engine.evaluate(&batch, &|| false).unwrap().unwrap();
            let Some(StepOutcome::Done(stats)) = engine.step(&batch, 0.0, &|| false).unwrap() else {
                panic!()
            };
            let expected_loss = values(&expected_loss)[0];
            assert!((stats.loss - expected_loss).abs() < 1e-5 * expected_loss, "{stats:?}, {expected_loss}");
            assert!(
                (nats / batch.counted as f64 - stats.loss).abs() < 1e-9,
                "evaluation is the same forward"
            );
            let flat = engine.gradient().unwrap();
            let layout = engine.parameters().layout();
            for parameter in engine.parameters().iter() {
                let name = &parameter.spec.name;
                let found = &flat[layout.range(name)];
                let expected = values(expected.get(plain.vars[name].as_tensor()).unwrap());
                let size = norm(expected.iter().copied());
                let difference = norm(found.iter().zip(&expected).map(|(&a, b)| f64::from(a) - b));
                // One token attends to itself alone: queries and keys then have gradients of zero, and of rounding in f32.
                if size < 1e-11 {
                    assert!(length == 1 && difference < 1e-5, "{name}: {difference:e}");
                    continue;
                }
                let relative = difference / size;
                if relative > worst.0 {
                    worst = (relative, format!("{name} at {rows}×{length}"));
                }
                assert!(relative <= 1e-4, "{name}: {relative:e} at {rows}×{length}, seed {SEED}, {config:?}");
            }
        }
    }
    println!("largest relative difference {:.1e}, of {}", worst.0, worst.1);
}

/// AdamW in f64 on candle's gradients, written down once more.
struct Oracle {
    plain: Plain,
    moments: Vec<(String, bool, Vec<f64>, Vec<f64>)>,
}

impl Oracle {
    fn step(&mut self, options: &TrainOptions, batch: &Batch, step: u64) -> f64 {
        let loss = self.plain.loss(&ids(batch), &batch.targets).unwrap();
        let grads = loss.backward().unwrap();
        let gradient = |name: &str| values(grads.get(self.plain.vars[name].as_tensor()).unwrap());
        let optimizer = &options.optimizer;
        let whole = norm(self.moments.iter().flat_map(|(name, ..)| gradient(name)));
        let clip = (optimizer.clip_grad_norm.unwrap() / (whole + 1e-6)).min(1.0);
        let lr = optimizer.lr * options.schedule.factor(step - 1, 0.0);
        let [b1, b2] = optimizer.betas;
        for (name, decays, m, v) in &mut self.moments {
            let var = &self.plain.vars[name.as_str()];
            let mut weights = values(var.as_tensor());
            let gradient = values(grads.get(var.as_tensor()).unwrap());
            let decay = if *decays { optimizer.weight_decay } else { 0.0 };
            for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(m.iter_mut()).zip(v.iter_mut()) {
                let g = g * clip;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                let (m, v) = (*m / (1.0 - b1.powi(step as i32)), *v / (1.0 - b2.powi(step as i32)));
                *w -= lr * (decay * *w + m / (v.sqrt() + optimizer.eps));
            }
            var.set(&Tensor::from_vec(weights, var.shape(), &CandleDevice::Cpu).unwrap()).unwrap();
        }
        values(&loss)[0]
    }
}

/// Within 1e-4 over 20 steps and 1e-2 over 200: rounding grows with the steps, and a wrong gradient would show at once.
#[test]
fn losses_follow_those_of_candles_autograd() {
    for (architecture, tied) in [(Architecture::Qwen3, true), (Architecture::Llama, false)] {
        let options = options(model(architecture, tied, [4, 2]), 2, 21);
        let mut engine = Engine::new(&options).unwrap();
        let plain = Plain::new(&options.model, engine.parameters(), DType::F64).unwrap();
        let zeros = |spec: &candlewick_model::ParameterSpec| vec![0.0; spec.len()];
        let moments = engine
            .parameters()
            .iter()
            .map(|p| (p.spec.name.clone(), p.spec.decay, zeros(&p.spec), zeros(&p.spec)))
            .collect();
        let mut oracle = Oracle { plain, moments };
        let mut losses = Vec::new();
        for step in 1..=200 {
            // A few batches again and again, so that there is something to learn.
            let batch = batch(&options, step % 5);
            let expected = oracle.step(&options, &batch, step);
            let Some(StepOutcome::Done(stats)) = engine.step(&batch, 0.0, &|| false).unwrap() else {
                panic!()
            };
            let limit = if step <= 20 { 1e-4 } else { 1e-2 };
            assert!((stats.loss - expected).abs() < limit, "step {step}: {} for {expected}", stats.loss);
            losses.push(stats.loss);
        }
        assert!(losses[199] < losses[0] - 0.1, "it learned: {} to {}", losses[0], losses[199]);
    }
}

/// Generation is written apart, in candle's operations, on the same weights: what it says of each token is what the
/// engine's evaluation says. 1e-4 nats of sums of f32 in another order.
#[test]
fn generation_has_the_engines_logits() {
    for config in shapes() {
        let options = options(config, 1, 40);
        let mut engine = Engine::new(&options).unwrap();
        disturb(&engine, 0.2);
        let mut batch = batch(&options, 3);
        // Also after an update: they share the memory.
        for _ in 0..2 {
            let mut decoder = Decoder::new(engine.transformer()).unwrap();
            let logits: Vec<Vec<f32>> = batch.inputs.iter().map(|&id| decoder.read(&[id]).unwrap()).collect();
            for target in [0, 7, 36] {
                batch.targets.fill(target);
                let expected: f64 = logits.iter().map(|logits| nats(logits, target as usize)).sum();
                let found = engine.evaluate(&batch, &|| false).unwrap().unwrap();
                assert!((found - expected).abs() < 1e-4 * 40.0, "{found} for {expected}, seed {SEED}");
            }
            engine.step(&batch, 0.0, &|| false).unwrap();
        }
    }
}

fn nats(logits: &[f32], target: usize) -> f64 {
    let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
    sum.ln() - f64::from(logits[target])
}
