//! nanoGPT's small recipe, beside PyTorch's run of the same architecture on the same windows of the same text.
//!
//! `scripts/fixtures/recipe.py` has trained PyTorch's side. Ours is trained with `CANDLEWICK_LONG=1`, which takes
//! minutes: `CANDLEWICK_LONG=1 cargo test --release -p candlewick-train --test recipe -- --nocapture`. Without it, both
//! sides are held to the same text and to the same loss before the first step.

use candlewick_feed::Batch;
use candlewick_model::{Architecture, ModelConfig, Random};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, Moments, OptimizerOptions, Recompute, Schedule, ScheduleKind,
    StepOutcome, TrainOptions,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const TEXT: &str = include_str!("fixtures/recipe/documents.txt");
const PYTORCH: &str = include_str!("fixtures/recipe/pytorch.json");

/// What `recipe.py` has written.
#[derive(Deserialize)]
struct PyTorch {
    text_sha256: String,
    shape: Shape,
    recipe: Recipe,
    /// By seed, by completed steps.
    validation_losses: BTreeMap<u64, BTreeMap<u64, f64>>,
}

#[derive(Deserialize)]
struct Shape {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rope_theta: f64,
    rms_norm_eps: f64,
    vocab_size: usize,
}

#[derive(Deserialize)]
struct Recipe {
    length: usize,
    rows: usize,
    steps: u64,
    lr: f64,
    final_lr_ratio: f64,
    warmup_steps: u64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    clip_grad_norm: f64,
    evaluate_every: u64,
}

impl PyTorch {
    fn read() -> Self {
        serde_json::from_str(PYTORCH).unwrap()
    }

    /// Its losses after so many steps, by seed.
    fn losses(&self, steps: u64) -> Vec<f64> {
        self.validation_losses.values().map(|losses| losses[&steps]).collect()
    }

    fn engine(&self, seed: u64) -> Engine {
        let Self { shape, recipe, .. } = self;
        Engine::new(&TrainOptions {
            model: ModelConfig {
                architecture: Architecture::Qwen3,
                hidden_size: shape.hidden_size,
                intermediate_size: shape.intermediate_size,
                num_hidden_layers: shape.num_hidden_layers,
                num_attention_heads: shape.num_attention_heads,
                num_key_value_heads: shape.num_key_value_heads,
                head_dim: shape.head_dim,
                rope_theta: shape.rope_theta,
                rms_norm_eps: shape.rms_norm_eps,
                tie_word_embeddings: true,
                vocab_size: shape.vocab_size,
                max_position_embeddings: recipe.length,
                bos_token_id: None,
                eos_token_id: None,
            },
            sequence_length: recipe.length,
            micro_batch_size: recipe.rows,
            global_batch_size: recipe.rows,
            optimizer: OptimizerOptions {
                lr: recipe.lr,
                betas: recipe.betas,
                eps: recipe.eps,
                weight_decay: recipe.weight_decay,
                clip_grad_norm: Some(recipe.clip_grad_norm),
                moments: Moments::Float32,
            },
            schedule: Schedule {
                kind: ScheduleKind::Cosine,
                warmup_steps: recipe.warmup_steps,
                final_lr_ratio: recipe.final_lr_ratio,
                decay_ratio: 0.2,
            },
            seed,
            device: Device::Cpu,
            init_from: None,
            threads: None,
            z_loss: 0.0,
            recompute: Recompute::None,
            max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
        })
        .unwrap()
    }
}

/// The text as ids of its characters in the order of their code points: nine tenths to train on, the rest to validate.
struct Data {
    training: Vec<u32>,
    validation: Vec<u32>,
    characters: usize,
}

impl Data {
    fn read() -> Self {
        let mut characters: Vec<char> = TEXT.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        let mut training: Vec<u32> =
            TEXT.chars().map(|c| characters.binary_search(&c).unwrap() as u32).collect();
        let validation = training.split_off(training.len() * 9 / 10);
        Self { training, validation, characters: characters.len() }
    }
}

/// The windows of `ids` that begin at `places`, each with the characters that follow its own.
fn windows(ids: &[u32], length: usize, places: &[usize]) -> Batch {
    let rows = |by| places.iter().flat_map(|at| &ids[at + by..at + by + length]).copied().collect();
    Batch {
        inputs: rows(0),
        targets: rows(1),
        rows: places.len(),
        sequence_length: length,
        counted: (places.len() * length) as u64,
    }
}

/// Mean nats a character over all whole windows.
fn validation_loss(engine: &mut Engine, ids: &[u32], length: usize) -> f64 {
    let places: Vec<usize> = (0..ids.len() - length).step_by(length).collect();
    let batch = windows(ids, length, &places);
    engine.evaluate(&batch, &|| false).unwrap().unwrap() / batch.counted as f64
}

/// Our losses for a seed, by completed steps.
fn train(pytorch: &PyTorch, data: &Data, seed: u64) -> BTreeMap<u64, f64> {
    let Recipe { length, rows, steps, evaluate_every, .. } = pytorch.recipe;
    let mut engine = pytorch.engine(seed);
    let mut random = Random::stream(seed, "windows");
    let mut losses = BTreeMap::from([(0, validation_loss(&mut engine, &data.validation, length))]);
    for done in 0..steps {
        let last = (data.training.len() - length) as u64;
        let places: Vec<usize> = (0..rows).map(|_| (random.bits() % last) as usize).collect();
        let batch = windows(&data.training, length, &places);
        let outcome = engine.step(&batch, done as f64 / steps as f64, &|| false).unwrap();
        assert!(matches!(outcome, Some(StepOutcome::Done(_))), "{outcome:?} after {done} steps");
        if (done + 1) % evaluate_every == 0 {
            losses.insert(done + 1, validation_loss(&mut engine, &data.validation, length));
        }
    }
    losses
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    values.iter().map(|value| (value - mean(values)).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

#[test]
fn both_sides_have_the_same_text_and_begin_with_the_same_loss() {
    let (pytorch, data) = (PyTorch::read(), Data::read());
    let digest: String = Sha256::digest(TEXT).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, pytorch.text_sha256);
    assert_eq!(data.characters, pytorch.shape.vocab_size);
    let theirs = mean(&pytorch.losses(0));
    let ours = validation_loss(&mut pytorch.engine(1), &data.validation, pytorch.recipe.length);
    assert!((ours - theirs).abs() < 0.05, "ours {ours:.4}, PyTorch {theirs:.4} before the first step");
}

#[test]
fn ours_learns_as_well_as_pytorch() {
    if std::env::var_os("CANDLEWICK_LONG").is_none_or(|value| value != "1") {
        return;
    }
    let (pytorch, data) = (PyTorch::read(), Data::read());
    let steps = pytorch.recipe.steps;
    let mut ours = Vec::new();
    for (&seed, theirs) in &pytorch.validation_losses {
        let losses = train(&pytorch, &data, seed);
        for (steps, loss) in &losses {
            println!("seed {seed}, {steps} steps: ours {loss:.4}, PyTorch {:.4}", theirs[steps]);
        }
        ours.push(losses[&steps]);
    }
    let theirs = pytorch.losses(steps);
    let deviation = ((variance(&ours) + variance(&theirs)) / 2.0).sqrt();
    let (ours, bar) = (mean(&ours), mean(&theirs) + deviation);
    println!("mean of the seeds: ours {ours:.4}, PyTorch {:.4}, at most {bar:.4}", mean(&theirs));
    assert!(ours <= bar, "{ours:.4} is above {bar:.4}");
}
