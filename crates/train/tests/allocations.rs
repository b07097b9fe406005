//! After the first step nothing large is allocated, and to go on from a checkpoint little. Alone in its file: the allocator counts for the whole process.

use candlewick_feed::Batch;
use candlewick_model::{Architecture, ModelConfig};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, Moments, OptimizerOptions, Recompute, Schedule, ScheduleKind,
    StepOutcome, TrainOptions,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// Every activation of this test's model has more bytes; the queue of the thread pool grows by blocks of about 1,500.
const BIG: usize = 4096;

struct Watching;

static WATCHES: AtomicBool = AtomicBool::new(false);
/// Where big blocks came from.
static FOUND: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn saw(size: usize) {
    if size < BIG || !WATCHES.load(Ordering::Relaxed) || INSIDE.replace(true) {
        return;
    }
    let trace = Backtrace::force_capture().to_string();
    // The product of matrices packs panels; that memory is the `gemm` crate's, and it is counted in the estimate.
    if !trace.contains("gemm_common") {
        FOUND.lock().unwrap().push((size, trace));
    }
    INSIDE.set(false);
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        saw(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        saw(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        saw(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn a_step_after_the_first_allocates_nothing_large_and_a_resume_less_than_the_weights() {
    let options = TrainOptions {
        model: ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 64,
            intermediate_size: 160,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 16,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            vocab_size: 500,
            max_position_embeddings: 128,
            bos_token_id: None,
            eos_token_id: None,
        },
        sequence_length: 128,
        micro_batch_size: 2,
        global_batch_size: 4,
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
        z_loss: 1e-5,
        recompute: Recompute::NormsAndSwiglu,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
    };
    let tokens = options.global_batch_size * options.sequence_length;
    let ids: Vec<u32> = (0..=tokens as u32).map(|at| at * 7919 % 500).collect();
    let batch = Batch {
        inputs: ids[..tokens].to_vec(),
        targets: ids[1..].to_vec(),
        rows: options.global_batch_size,
        sequence_length: options.sequence_length,
        counted: tokens as u64,
    };
    let mut engine = Engine::new(&options).unwrap();
    // The allocator sees what there is to see.
    WATCHES.store(true, Ordering::Relaxed);
    drop(std::hint::black_box(vec![0u8; BIG]));
    WATCHES.store(false, Ordering::Relaxed);
    assert_eq!(FOUND.lock().unwrap().drain(..).count(), 1);

    assert!(matches!(engine.step(&batch, 0.0, &|| false).unwrap(), Some(StepOutcome::Done(_))));
    WATCHES.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(engine.step(&batch, 0.0, &|| false).unwrap(), Some(StepOutcome::Done(_))));
    }
    engine.evaluate(&batch, &|| false).unwrap();
    WATCHES.store(false, Ordering::Relaxed);
    let found = std::mem::take(&mut *FOUND.lock().unwrap());
    assert!(found.is_empty(), "{} blocks, the first of {} bytes:\n{}", found.len(), found[0].0, found[0].1);

    let directory = tempfile::tempdir().unwrap();
    engine.save(directory.path()).unwrap();
    WATCHES.store(true, Ordering::Relaxed);
    engine.load(directory.path()).unwrap();
    WATCHES.store(false, Ordering::Relaxed);
    let loading: usize = FOUND.lock().unwrap().iter().map(|(size, _)| size).sum();
    let weights = 4 * engine.parameters().layout().len();
    assert!(loading > 0 && loading < weights, "{loading} bytes to load weights of {weights} and moments");
}
