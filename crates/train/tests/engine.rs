//! What the engine promises: repeatable, exact accumulation, no change on failure, and a checkpoint that goes on.

use candle_core::{Device as CandleDevice, Tensor};
use candlewick_feed::{Batch, IGNORED};
use candlewick_model::{Architecture, ModelConfig, Random, SamplerOptions, Transformer};
use candlewick_train::{
    DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, Moments, OptimizerOptions, Recompute, Schedule, ScheduleKind,
    StepOutcome, StepStats, TrainOptions,
};
use sha2::{Digest, Sha256};
use std::cell::Cell;

fn options(architecture: Architecture, tie_word_embeddings: bool) -> TrainOptions {
    TrainOptions {
        model: ModelConfig {
            architecture,
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings,
            vocab_size: 50,
            max_position_embeddings: 32,
            bos_token_id: None,
            eos_token_id: None,
        },
        sequence_length: 19,
        micro_batch_size: 4,
        global_batch_size: 4,
        optimizer: OptimizerOptions {
            lr: 1e-2,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            clip_grad_norm: Some(1.0),
            moments: Moments::Float32,
        },
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            warmup_steps: 2,
            final_lr_ratio: 0.1,
            decay_ratio: 0.2,
        },
        seed: 5,
        device: Device::Cpu,
        init_from: None,
        z_loss: 0.0,
        recompute: Recompute::None,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
        threads: Some(2),
    }
}

fn qwen3() -> TrainOptions {
    options(Architecture::Qwen3, true)
}

/// Batch number `at` of a stream of random ids; the last row is partly filling.
fn batch(options: &TrainOptions, at: u64) -> Batch {
    let mut random = Random::stream(at, "batch");
    let (rows, length) = (options.global_batch_size, options.sequence_length);
    let ids: Vec<u32> = (0..=rows * length).map(|_| (random.bits() % 50) as u32).collect();
    let mut targets = ids[1..].to_vec();
    let filled = targets.len() - 7;
    targets[filled..].fill(IGNORED);
    Batch {
        inputs: ids[..rows * length].to_vec(),
        targets,
        rows,
        sequence_length: length,
        counted: filled as u64,
    }
}

fn done(engine: &mut Engine, batch: &Batch, progress: f64) -> StepStats {
    match engine.step(batch, progress, &|| false).unwrap() {
        Some(StepOutcome::Done(stats)) => stats,
        other => panic!("{other:?}"),
    }
}

fn values(engine: &Engine) -> Vec<Vec<f32>> {
    let flat = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    engine.parameters().iter().map(|parameter| flat(parameter.tensor.clone())).collect()
}

fn bits(engine: &Engine) -> Vec<Vec<u32>> {
    values(engine).into_iter().map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn a_batch_cut_to_a_context_has_the_loss_of_shorter_sequences() {
    let whole = TrainOptions { sequence_length: 12, ..qwen3() };
    let batch = batch(&whole, 3);
    let mut engine = Engine::new(&whole).unwrap();
    let all = engine.evaluate(&batch, &|| false).unwrap().unwrap();
    for context in [1, 4] {
        let short = TrainOptions { sequence_length: context, ..whole.clone() };
        let rows = batch.rows * batch.sequence_length / context;
        let pieces = Batch { rows, sequence_length: context, ..batch.clone() };
        let expected = Engine::new(&short).unwrap().evaluate(&pieces, &|| false).unwrap().unwrap();
        let nats = engine.evaluate_in(&batch, context, &|| false).unwrap().unwrap();
        assert!((nats - expected).abs() < 1e-6 * expected, "{nats} for {expected}, {context} tokens");
        assert!((nats - all).abs() > 1e-4, "{nats} with {context} tokens as with all");
    }
    assert_eq!(engine.evaluate_in(&batch, 5, &|| false).unwrap_err().code, "INTERNAL");
}

#[test]
fn the_written_out_step_has_the_loss_and_gradient_of_candles_autograd() {
    for architecture in [Architecture::Qwen3, Architecture::Llama] {
        for tied in [true, false] {
            // Plain descent: with no moments, decay or clipping, AdamW's first step shows only signs. The norm and
            // the direction of the update are checked through the gradient norm and the second loss instead.
            let options = options(architecture, tied);
            let mut engine = Engine::new(&options).unwrap();
            let oracle = Transformer::new(options.model.clone(), options.seed, &CandleDevice::Cpu).unwrap();
            let batch = batch(&options, 1);
            let ids =
                Tensor::from_slice(&batch.inputs, (batch.rows, batch.sequence_length), &CandleDevice::Cpu)
                    .unwrap();
            let scale = 1.0 / batch.counted as f64;
            let loss = oracle.loss(&ids, &batch.targets, scale).unwrap();
            let grads = loss.scaled.backward().unwrap();
            let squares = oracle.parameters().iter().map(|parameter| {
                let grad = oracle.parameters().gradient(&grads, &parameter.spec.name).unwrap().unwrap();
                f64::from(grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
            });
            let norm = squares.sum::<f64>().sqrt();
            let nats = engine.evaluate(&batch, &|| false).unwrap().unwrap();
            let stats = done(&mut engine, &batch, 0.0);
            assert!(
                (stats.loss - loss.nats * scale).abs() < 1e-6,
                "{} for {}",
                stats.loss,
                loss.nats * scale
            );
            assert!((stats.grad_norm / norm - 1.0).abs() < 1e-5, "{} for {norm}", stats.grad_norm);
            assert!((nats - loss.nats).abs() < 1e-4, "{nats} for {}", loss.nats);

            // The first update of every value, from candle's gradient by AdamW's formula written down once more.
            let lr = options.optimizer.lr * options.schedule.factor(0, 0.0);
            let clip = (1.0 / (norm + 1e-6)).min(1.0);
            for (parameter, updated) in oracle.parameters().iter().zip(values(&engine)) {
                let grad = oracle
                    .parameters()
                    .gradient(&grads, &parameter.spec.name)
                    .unwrap()
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                let before = parameter.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let decay = if parameter.spec.shape.len() == 2 { 0.1 } else { 0.0 };
                for ((before, after), grad) in before.into_iter().zip(updated).zip(grad) {
                    let g = f64::from(grad) * clip;
                    let expected = f64::from(before) * (1.0 - lr * decay) - lr * g / (g.abs() + 1e-8);
                    // Below this the sign of a gradient is a matter of rounding.
                    if grad.abs() > 1e-5 || grad == 0.0 {
                        assert!(
                            (f64::from(after) - expected).abs() < 1e-5,
                            "{}: {after} for {expected}",
                            parameter.spec.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_few_steps_on_one_batch_lower_the_loss() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    let batch = batch(&qwen3(), 1);
    let losses: Vec<f64> = (0..5).map(|_| done(&mut engine, &batch, 0.0).loss).collect();
    assert!((losses[0] - 50f64.ln()).abs() < 0.1, "{losses:?}");
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    assert_eq!(engine.steps(), 5);
}

#[test]
fn accumulating_four_micro_batches_is_one_large_batch() {
    let run = |micro_batch_size| {
        let options = TrainOptions { micro_batch_size, ..qwen3() };
        let mut engine = Engine::new(&options).unwrap();
        let stats: Vec<StepStats> = (0..3).map(|at| done(&mut engine, &batch(&options, at), 0.0)).collect();
        (stats, values(&engine))
    };
    let (whole, whole_values) = run(4);
    for micro_batch_size in [1, 3] {
        let (parts, parts_values) = run(micro_batch_size);
        for (whole, part) in whole.iter().zip(&parts) {
            assert!((whole.loss - part.loss).abs() < 1e-5 && whole.lr == part.lr);
            assert!((whole.grad_norm / part.grad_norm - 1.0).abs() < 1e-4);
        }
        // A gradient near zero may change sign by rounding, and AdamW then moves by up to 2·lr; the rest agree.
        let pairs = whole_values.iter().flatten().zip(parts_values.iter().flatten());
        let differing = pairs.filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        assert!(differing * 200 < whole_values.iter().map(Vec::len).sum::<usize>(), "{differing}");
    }
}

#[test]
fn a_seed_repeats_bitwise_on_one_two_and_three_threads() {
    let run = |seed, threads| {
        let options = TrainOptions { seed, threads: Some(threads), ..qwen3() };
        let mut engine = Engine::new(&options).unwrap();
        let losses: Vec<u64> =
            (0..4).map(|at| done(&mut engine, &batch(&options, at), 0.1).loss.to_bits()).collect();
        (losses, bits(&engine))
    };
    let once = run(5, 2);
    assert_eq!(run(5, 2), once);
    assert_eq!(run(5, 1), once);
    assert_eq!(run(5, 3), once);
    assert_ne!(run(6, 2), once);
}

/// Sizes at which products are split among threads in every dimension, which those of the other tests are too small for.
#[test]
fn large_products_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        let mut options = TrainOptions { threads: Some(threads), ..options(Architecture::Qwen3, false) };
        options.model.hidden_size = 200;
        options.model.intermediate_size = 520;
        options.model.vocab_size = 1_030;
        options.model.max_position_embeddings = 150;
        options.sequence_length = 150;
        let mut engine = Engine::new(&options).unwrap();
        let losses: Vec<u64> =
            (0..2).map(|at| done(&mut engine, &batch(&options, at), 0.1).loss.to_bits()).collect();
        (losses, bits(&engine))
    };
    let once = run(1);
    assert_eq!(run(2), once);
    assert_eq!(run(3), once);
}

#[test]
fn going_on_from_a_checkpoint_equals_never_having_stopped_bitwise() {
    let options = TrainOptions { micro_batch_size: 2, ..options(Architecture::Llama, false) };
    let steps = |engine: &mut Engine, range: std::ops::Range<u64>| -> Vec<StepStats> {
        range.map(|at| done(engine, &batch(&options, at), at as f64 / 6.0)).collect()
    };
    let mut straight = Engine::new(&options).unwrap();
    let all = steps(&mut straight, 0..6);

    let mut interrupted = Engine::new(&options).unwrap();
    steps(&mut interrupted, 0..2);
    for stop in [2, 4] {
        let directory = tempfile::tempdir().unwrap();
        interrupted.save(directory.path()).unwrap();
        // Another seed: everything must come from the files.
        interrupted = Engine::new(&TrainOptions { seed: 99, ..options.clone() }).unwrap();
        interrupted.load(directory.path()).unwrap();
        assert_eq!(interrupted.steps(), stop);
        assert_eq!(steps(&mut interrupted, stop..stop + 2), all[stop as usize..stop as usize + 2]);
    }
    assert_eq!(bits(&interrupted), bits(&straight));
}

#[test]
fn init_from_takes_the_weights_of_a_model_directory_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Engine::new(&qwen3()).unwrap();
    done(&mut first, &batch(&qwen3(), 0), 0.1);
    first.save(directory.path()).unwrap();
    let begun = TrainOptions { seed: 99, init_from: Some(directory.path().to_path_buf()), ..qwen3() };
    let engine = Engine::new(&begun).unwrap();
    assert_eq!((bits(&engine), engine.steps()), (bits(&first), 0));

    let mut wider = begun;
    wider.model.intermediate_size += 8;
    let error = Engine::new(&wider).unwrap_err();
    assert!(
        error.code == "CONFIG_INVALID" && error.message.contains("mlp.gate_proj.weight has shape"),
        "{error:?}"
    );
}

#[test]
fn saving_twice_writes_the_same_bytes() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    done(&mut engine, &batch(&qwen3(), 0), 0.0);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    engine.save(first.path()).unwrap();
    engine.save(second.path()).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "config.json"] {
        let read = |directory: &tempfile::TempDir| std::fs::read(directory.path().join(file)).unwrap();
        assert!(read(&first) == read(&second), "{file}");
    }
}

#[test]
fn a_snapshot_is_what_was_there_when_it_was_taken_whatever_happens_since() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    done(&mut engine, &batch(&qwen3(), 0), 0.0);
    let (now, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = engine.save(now.path()).unwrap();
    let snapshot = engine.snapshot().unwrap().expect("this machine has memory for a tiny model");
    for step in 1..3 {
        done(&mut engine, &batch(&qwen3(), step), 0.0);
    }
    assert_eq!(snapshot.write(later.path()).unwrap(), files);
    for (name, digest) in files {
        let written = std::fs::read(later.path().join(name)).unwrap();
        assert!(written == std::fs::read(now.path().join(name)).unwrap(), "{name}");
        assert_eq!(written.len() as u64, digest.bytes);
        let sha256: String = Sha256::digest(&written).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256, digest.sha256, "{name}");
    }
}

#[test]
fn a_text_is_continued_from_the_weights_as_they_stand_and_can_be_interrupted() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    let greedy = SamplerOptions { temperature: 0.0, top_k: None, top_p: None, seed: 1, vocabulary: 50 };
    let text =
        |engine: &mut Engine| engine.generate(&[1, 2, 3], 5, greedy.clone(), &|| false).unwrap().unwrap();
    let before = text(&mut engine);
    assert!(before.len() <= 5 && before.iter().all(|&id| id < 50));
    assert_eq!(text(&mut engine), before);
    let asked = Cell::new(0);
    let interrupted = || asked.replace(asked.get() + 1) == before.len().min(2);
    assert_eq!(engine.generate(&[1, 2, 3], 5, greedy.clone(), &interrupted).unwrap(), None);
    let written = bits(&engine);
    done(&mut engine, &batch(&qwen3(), 0), 0.0);
    // Reading the text changed nothing: the step is that of an engine that never wrote one.
    let mut fresh = Engine::new(&qwen3()).unwrap();
    assert_eq!(bits(&fresh), written);
    done(&mut fresh, &batch(&qwen3(), 0), 0.0);
    assert_eq!(bits(&fresh), bits(&engine));
    assert_eq!(engine.generate(&[], 5, greedy, &|| false).unwrap_err().code, "USAGE");
}

#[test]
fn an_interruption_at_any_poll_changes_nothing() {
    let options = TrainOptions { micro_batch_size: 1, ..qwen3() };
    let mut engine = Engine::new(&options).unwrap();
    let batch = batch(&options, 0);
    let before = bits(&engine);
    for polls in 0..5 {
        let left = Cell::new(polls);
        let interrupted = || left.replace(left.get() - 1) == 0;
        assert_eq!(engine.step(&batch, 0.0, &interrupted).unwrap(), None);
        assert_eq!((bits(&engine), engine.steps()), (before.clone(), 0));
    }
    let asked = Cell::new(0);
    assert_eq!(engine.evaluate(&batch, &|| asked.replace(asked.get() + 1) == 2).unwrap(), None);
    // What is left of the abandoned steps does not leak into the next.
    let stats = done(&mut engine, &batch, 0.0);
    let mut fresh = Engine::new(&options).unwrap();
    assert_eq!(done(&mut fresh, &batch, 0.0), stats);
    assert_eq!(bits(&fresh), bits(&engine));
}

/// The loss and its gradient are not finite while a weight is not.
#[test]
fn a_poisoned_weight_is_skipped_then_divergence_and_changes_nothing() {
    const NAME: &str = "model.layers.1.mlp.up_proj.weight";
    let options = TrainOptions { max_skipped_steps: 3, ..qwen3() };
    let mut engine = Engine::new(&options).unwrap();
    let batch = batch(&options, 0);
    done(&mut engine, &batch, 0.0);
    for poison in [f32::NAN, f32::INFINITY] {
        let before = engine.parameters().get(NAME).unwrap().copy().unwrap();
        let poisoned = before.affine(0.0, 0.0).unwrap().affine(1.0, f64::from(poison)).unwrap();
        engine.parameters().set(NAME, &poisoned).unwrap();
        let poisoned = (bits(&engine), saved(&engine));
        for expected in 1..=2 {
            let outcome = engine.step(&batch, 0.0, &|| false).unwrap();
            let Some(StepOutcome::Skipped { stats, in_a_row }) = outcome else { panic!("{outcome:?}") };
            assert!(in_a_row == expected && !stats.loss.is_finite());
        }
        let error = engine.step(&batch, 0.0, &|| false).unwrap_err();
        assert_eq!(error.code, "DIVERGED");
        assert!(error.message.contains("step 2") && error.message.contains("3 times"), "{error:?}");
        assert!(error.hint.contains("lr"), "{error:?}");
        assert_eq!(engine.steps(), 1);
        // Weights and moments, to the byte.
        assert!((bits(&engine), saved(&engine)) == poisoned);
        engine.parameters().set(NAME, &before).unwrap();
    }
    // Nothing is left of it in buffers or moments.
    let stats = done(&mut engine, &batch, 0.0);
    let mut fresh = Engine::new(&options).unwrap();
    done(&mut fresh, &batch, 0.0);
    assert_eq!(done(&mut fresh, &batch, 0.0), stats);
    assert_eq!(bits(&fresh), bits(&engine));
}

/// The optimizer's file.
fn saved(engine: &Engine) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    engine.save(directory.path()).unwrap();
    std::fs::read(directory.path().join("optimizer.safetensors")).unwrap()
}

#[test]
fn an_update_that_is_made_begins_the_count_of_those_left_out_anew() {
    let options = TrainOptions { max_skipped_steps: 2, ..qwen3() };
    let mut engine = Engine::new(&options).unwrap();
    let batch = batch(&options, 0);
    for _ in 0..3 {
        let before = engine.parameters().get("model.norm.weight").unwrap().copy().unwrap();
        let poisoned = before.affine(f64::NAN, 0.0).unwrap();
        engine.parameters().set("model.norm.weight", &poisoned).unwrap();
        let outcome = engine.step(&batch, 0.0, &|| false).unwrap();
        assert!(matches!(outcome, Some(StepOutcome::Skipped { in_a_row: 1, .. })), "{outcome:?}");
        engine.parameters().set("model.norm.weight", &before).unwrap();
        done(&mut engine, &batch, 0.0);
    }
    assert_eq!(engine.steps(), 3);
}

#[test]
fn recomputing_gives_the_same_bits_in_less_memory() {
    for architecture in [Architecture::Qwen3, Architecture::Llama] {
        let run = |recompute| {
            let options = TrainOptions { recompute, micro_batch_size: 2, ..options(architecture, true) };
            let mut engine = Engine::new(&options).unwrap();
            let losses: Vec<u64> =
                (0..3).map(|at| done(&mut engine, &batch(&options, at), 0.1).loss.to_bits()).collect();
            (losses, bits(&engine), engine.plan().activations)
        };
        let (losses, weights, kept) = run(Recompute::None);
        let (again, same, fewer) = run(Recompute::NormsAndSwiglu);
        assert_eq!((losses, weights), (again, same));
        assert!(fewer < kept);
    }
}

/// Rounding the moments to 8 bits of mantissa moves each update by less than a hundredth of itself.
#[test]
fn moments_in_bf16_train_nearly_as_those_in_f32_and_survive_a_checkpoint() {
    let run = |moments| {
        let mut options = TrainOptions { micro_batch_size: 2, ..qwen3() };
        options.optimizer.moments = moments;
        let mut engine = Engine::new(&options).unwrap();
        let losses: Vec<f64> =
            (0..20).map(|at| done(&mut engine, &batch(&options, at % 4), 0.1).loss).collect();
        (losses, engine, options)
    };
    let (wide, _, _) = run(Moments::Float32);
    let (narrow, mut engine, options) = run(Moments::Bfloat16);
    assert_eq!(run(Moments::Bfloat16).0, narrow, "the rounding depends on the seed alone");
    for (wide, narrow) in wide.iter().zip(&narrow) {
        assert!((wide - narrow).abs() < 0.02, "{narrow} for {wide}");
    }
    let directory = tempfile::tempdir().unwrap();
    engine.save(directory.path()).unwrap();
    let mut again = Engine::new(&options).unwrap();
    again.load(directory.path()).unwrap();
    for at in 20..23 {
        assert_eq!(done(&mut again, &batch(&options, at), 0.1), done(&mut engine, &batch(&options, at), 0.1));
    }
    assert_eq!(bits(&again), bits(&engine));
}

#[test]
fn z_loss_pulls_the_logarithm_of_the_sum_towards_zero() {
    let run = |z_loss| {
        let options = TrainOptions { z_loss, ..qwen3() };
        let mut engine = Engine::new(&options).unwrap();
        let batch = batch(&options, 1);
        let first = done(&mut engine, &batch, 0.0);
        (first.loss, engine.gradient().unwrap())
    };
    let ((plain_loss, plain), (loss, gradient)) = (run(0.0), run(1e-2));
    assert_eq!(plain_loss, loss, "the loss that is told is the cross-entropy");
    assert_ne!(plain, gradient);
}

#[test]
fn norms_do_not_decay_and_matrices_do() {
    // Without a learning signal only decay moves a weight; lr is what multiplies it.
    let mut options = qwen3();
    options.optimizer.weight_decay = 0.5;
    let mut decayed = Engine::new(&options).unwrap();
    options.optimizer.weight_decay = 0.0;
    let mut plain = Engine::new(&options).unwrap();
    let before = values(&plain);
    let batch = batch(&options, 0);
    let lr = done(&mut plain, &batch, 0.0).lr as f32;
    done(&mut decayed, &batch, 0.0);
    let names: Vec<_> = plain.parameters().iter().map(|parameter| parameter.spec.clone()).collect();
    for (at, spec) in names.iter().enumerate() {
        let factor = if spec.name.contains("norm") { 0.0 } else { 0.5 };
        for ((without, with), before) in values(&plain)[at].iter().zip(&values(&decayed)[at]).zip(&before[at])
        {
            assert!((without - with - lr * factor * before).abs() < 1e-7, "{}", spec.name);
        }
    }
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused_and_change_nothing() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    engine.save(saved.path()).unwrap();
    done(&mut engine, &batch(&qwen3(), 0), 0.0);
    let before = bits(&engine);

    for file in ["model.safetensors", "optimizer.safetensors"] {
        let intact = std::fs::read(saved.path().join(file)).unwrap();
        for cut in [0, 5, 100, intact.len() - 1] {
            std::fs::write(saved.path().join(file), &intact[..cut]).unwrap();
            let error = engine.load(saved.path()).unwrap_err();
            assert!(error.code == "CHECKPOINT_CORRUPT" && error.message.contains(file), "{error:?}");
        }
        std::fs::remove_file(saved.path().join(file)).unwrap();
        assert_eq!(engine.load(saved.path()).unwrap_err().code, "CHECKPOINT_CORRUPT");
        std::fs::write(saved.path().join(file), &intact).unwrap();
    }
    let other = Engine::new(&options(Architecture::Llama, true)).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    other.save(foreign.path()).unwrap();
    assert_eq!(engine.load(foreign.path()).unwrap_err().code, "CHECKPOINT_CORRUPT");
    assert_eq!((bits(&engine), engine.steps()), (before, 1));
    engine.load(saved.path()).unwrap();
    assert_eq!(engine.steps(), 0);
}

#[test]
fn bad_options_name_their_key() {
    type Change = fn(&mut TrainOptions);
    let cases: [(&str, Change); 10] = [
        ("z_loss", |options| options.z_loss = -1.0),
        ("max_skipped_steps", |options| options.max_skipped_steps = 0),
        ("sequence_length", |options| options.sequence_length = 33),
        ("micro_batch_size", |options| options.micro_batch_size = 0),
        ("global_batch_size", |options| options.global_batch_size = 0),
        ("num_key_value_heads", |options| options.model.num_key_value_heads = 3),
        ("lr", |options| options.optimizer.lr = f64::NAN),
        ("betas", |options| options.optimizer.betas = [0.9, 1.0]),
        ("clip_grad_norm", |options| options.optimizer.clip_grad_norm = Some(0.0)),
        ("final_lr_ratio", |options| options.schedule.final_lr_ratio = -0.1),
    ];
    for (key, change) in cases {
        let mut options = qwen3();
        change(&mut options);
        let error = Engine::new(&options).unwrap_err();
        assert_eq!(error.code, "CONFIG_INVALID");
        assert!(error.message.contains(key) && error.hint.contains(key), "{error:?}");
    }
}

#[test]
fn a_token_beyond_the_vocabulary_is_refused() {
    let mut engine = Engine::new(&qwen3()).unwrap();
    let good = batch(&qwen3(), 0);
    let mut bad_input = good.clone();
    bad_input.inputs[3] = 50;
    let mut bad_target = good;
    bad_target.targets[3] = 50;
    for bad in [bad_input, bad_target] {
        assert_eq!(engine.step(&bad, 0.0, &|| false).unwrap_err().code, "TOKENIZER_MISMATCH");
        assert_eq!(engine.evaluate(&bad, &|| false).unwrap_err().code, "TOKENIZER_MISMATCH");
    }
}
