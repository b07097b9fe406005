//! Times steps of the quickstart's shape: `cargo run --release -p candlewick-train --example step_speed -- [THREADS]`.

use candlewick_feed::Batch;
use candlewick_model::{Architecture, ModelConfig, Random};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, Moments, OptimizerOptions, Recompute, Schedule, ScheduleKind,
    StepOutcome, TrainOptions,
};
use std::time::Instant;

fn main() -> Result<(), candlewick_train::TrainError> {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    let model = ModelConfig {
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
    };
    let count = model.parameter_count();
    let options = TrainOptions {
        model,
        sequence_length: 256,
        micro_batch_size: 16,
        global_batch_size: 16,
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
            warmup_steps: 1,
            final_lr_ratio: 0.1,
            decay_ratio: 0.2,
        },
        seed: 1,
        init_from: None,
        z_loss: 0.0,
        recompute: Recompute::None,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
        device: Device::Cpu,
        threads,
    };
    let mut engine = Engine::new(&options)?;
    let (rows, length) = (options.global_batch_size, options.sequence_length);
    let mut random = Random::stream(1, "ids");
    let ids: Vec<u32> = (0..rows * length + 1).map(|_| (random.bits() % 4096) as u32).collect();
    let batch = Batch {
        inputs: ids[..rows * length].to_vec(),
        targets: ids[1..].to_vec(),
        rows,
        sequence_length: length,
        counted: (rows * length) as u64,
    };
    println!("{} parameters, {} in blocks, {} threads", count.total, count.blocks, engine.threads());
    let mut times = Vec::new();
    for step in 1..=15 {
        let started = Instant::now();
        let Some(StepOutcome::Done(stats)) = engine.step(&batch, 0.0, &|| false)? else { break };
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "step {step}: {:.1} ms, loss {:.4}, grad norm {:.4}",
            seconds * 1e3,
            stats.loss,
            stats.grad_norm
        );
        times.push(seconds);
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!("median {:.1} ms, {:.0} tokens/s", median * 1e3, (rows * length) as f64 / median);
    Ok(())
}
