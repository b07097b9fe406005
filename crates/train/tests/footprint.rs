//! The memory of a step is what was foretold. Alone in its file: other tests of the same process would be measured.
#![cfg(target_os = "linux")]

use candlewick_feed::{Batch, FeedMemory};
use candlewick_model::{Architecture, ModelConfig};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, EngineShape, Moments, OptimizerOptions, Recompute, Schedule,
    ScheduleKind, StepOutcome, Surroundings, TrainOptions, run_memory,
};

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_step_and_an_evaluation_peak_where_the_estimate_says() {
    let options = TrainOptions {
        model: ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 256,
            intermediate_size: 768,
            num_hidden_layers: 4,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 32,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            vocab_size: 8_000,
            max_position_embeddings: 256,
            bos_token_id: None,
            eos_token_id: None,
        },
        sequence_length: 256,
        micro_batch_size: 8,
        global_batch_size: 8,
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
            warmup_steps: 0,
            final_lr_ratio: 0.1,
            decay_ratio: 0.2,
        },
        seed: 1,
        device: Device::Cpu,
        threads: Some(2),
        init_from: None,
        z_loss: 0.0,
        recompute: Recompute::None,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
    };
    let before = status("VmRSS");
    let tokens = options.global_batch_size * options.sequence_length;
    let ids: Vec<u32> = (0..=tokens as u32).map(|at| at * 7919 % 8_000).collect();
    let batch = Batch {
        inputs: ids[..tokens].to_vec(),
        targets: ids[1..].to_vec(),
        rows: options.global_batch_size,
        sequence_length: options.sequence_length,
        counted: tokens as u64,
    };
    let mut engine = Engine::new(&options).unwrap();
    for _ in 0..2 {
        assert!(matches!(engine.step(&batch, 0.0, &|| false).unwrap(), Some(StepOutcome::Done(_))));
    }
    engine.evaluate(&batch, &|| false).unwrap();
    let feed = FeedMemory {
        sources: 0,
        shuffle_buffer_size: 0,
        batch_size: 0,
        document_bytes: 0,
        batch_tokens: 0,
        threads: 0,
    };
    let around =
        Surroundings { feed, tokenizer: 0, held_out_documents: 1, process: before, available: Some(0) };
    let memory = run_memory(&EngineShape::from(&options), &around);
    let measured = status("VmHWM");
    let error = memory.peak as f64 / measured as f64 - 1.0;
    println!("measured {measured}, before {before}, estimated {memory:?}: {:+.2} %", 100.0 * error);
    assert!(error.abs() < 0.05, "{measured} bytes measured, {memory:?}");
}
