//! A step of the CUDA backend on the host: the kernels are compiled as C++ (`crates/cuda/kernels/emulation`), the products
//! are loops, and what comes out is held against the CPU's step. Every kernel sees only the values that its launch names,
//! so a buffer that is too small, a wrong offset or a wrong type is an error of the program that runs them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use candlewick_cuda::{
    Address, Argument, Element, Form, Launch, Product, Queue, Span, Trouble, kernels::SOURCES,
};
use candlewick_feed::Batch;
use candlewick_model::{Architecture, Decoder, FlatLayout, Random, SamplerOptions, Transformer};

use super::*;
use crate::{
    DEFAULT_MAX_SKIPPED_STEPS, Engine, OptimizerOptions, Schedule, ScheduleKind, StepOutcome, TrainOptions,
    backend::{Cpu, cpu_plan},
    plan::Recompute,
    step::{MicroBatch, Step},
};

/// Where memory begins: no offset is an address by accident.
const BASE: Address = Address(1 << 40);

/// Memory and the program that runs kernels on it.
struct Host {
    memory: RefCell<Vec<u8>>,
    program: Child,
    asked: VecDeque<Vec<u8>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    fn new(bytes: usize) -> Self {
        let program = Command::new(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program of the kernels starts");
        // What nobody wrote is not a number, of either kind.
        Self { memory: RefCell::new(vec![0xFF; bytes]), program, asked: VecDeque::new() }
    }

    fn range(span: Span) -> std::ops::Range<usize> {
        let first = usize::try_from(span.at.0 - BASE.0).expect("an offset");
        first..first + span.bytes()
    }

    /// The values of a matrix of bf16.
    fn values(&self, span: Span, len: usize) -> Vec<f32> {
        assert_eq!(span.element, Element::Bf16);
        assert!(len <= span.len, "{len} values of {span:?}");
        let memory = self.memory.borrow();
        let bytes = memory[Self::range(span)].chunks_exact(2).take(len);
        bytes.map(|pair| f32::from_le_bytes([0, 0, pair[0], pair[1]])).collect()
    }
}

/// To nearest, ties to even.
fn rounded(value: f32) -> [u8; 2] {
    half::bf16::from_f32(value).to_le_bytes()
}

impl Queue for Host {
    fn launch(&mut self, launch: &Launch) -> Result<(), Trouble> {
        let geometry = &launch.geometry;
        let mut request = Vec::new();
        let mut word = |value: u32| request.extend(value.to_le_bytes());
        word(geometry.kernel.len() as u32);
        request.extend(geometry.kernel.as_bytes());
        // In their order, and no seed for another.
        for value in geometry.grid.into_iter().chain([geometry.block, geometry.shared, 0, 0, 0]) {
            request.extend(value.to_le_bytes());
        }
        request.extend((launch.arguments.len() as u32).to_le_bytes());
        let mut spans: Vec<(usize, Span)> = Vec::new();
        for (at, &argument) in launch.arguments.iter().enumerate() {
            let (how, kind, bits): (u8, u8, u64) = match argument {
                Argument::Null => (3, 0, 0),
                Argument::I32(_) => (0, b'i', argument.bits()),
                Argument::I64(_) => (0, b'l', argument.bits()),
                Argument::U64(_) => (0, b'q', argument.bits()),
                Argument::F32(_) => (0, b'f', argument.bits()),
                Argument::Span(span) => {
                    let letter = match span.element {
                        Element::Bf16 => b'b',
                        Element::F32 => b'f',
                        Element::U32 => b'u',
                        Element::F64 => b'd',
                    };
                    match spans.iter().find(|(_, other)| *other == span) {
                        Some(&(before, _)) => (4, letter, before as u64),
                        None => {
                            let range = Self::range(span);
                            let apart = |other: std::ops::Range<usize>| {
                                range.end <= other.start || other.end <= range.start
                            };
                            assert!(
                                spans.iter().all(|&(_, other)| apart(Self::range(other))),
                                "{launch:?} has arguments that overlap"
                            );
                            spans.push((at, span));
                            (1, letter, span.bytes() as u64)
                        }
                    }
                }
            };
            request.extend([how, kind]);
            request.extend(bits.to_le_bytes());
            if how == 1 {
                let (_, span) = spans.last().expect("just pushed");
                request.extend_from_slice(&self.memory.borrow()[Self::range(*span)]);
            }
        }
        let failed = |error: std::io::Error| panic!("{}: {error}", geometry.kernel);
        let stdin = self.program.stdin.as_mut().expect("a pipe");
        stdin.write_all(&request).and_then(|()| stdin.flush()).unwrap_or_else(failed);
        let stdout = self.program.stdout.as_mut().expect("a pipe");
        for (_, span) in spans {
            let memory = &mut self.memory.borrow_mut()[Self::range(span)];
            stdout.read_exact(memory).unwrap_or_else(failed);
        }
        Ok(())
    }

    fn product(&mut self, product: &Product) -> Result<(), Trouble> {
        let ProductShape { form, tokens, outputs, inputs, add } = product.shape;
        // Rows and columns of the result and terms of a sum; how far apart rows and terms lie in the left operand, columns
        // and terms in the right one.
        let (rows, columns, terms, (row_step, left_step), (column_step, right_step)) = match form {
            Form::Forward => (tokens, outputs, inputs, (inputs, 1), (inputs, 1)),
            Form::BackwardInput => (tokens, inputs, outputs, (outputs, 1), (1, inputs)),
            Form::BackwardWeight => (outputs, inputs, tokens, (1, outputs), (1, inputs)),
        };
        let left = self.values(product.left, rows * terms);
        let right = self.values(product.right, columns * terms);
        let result = product.result;
        assert!(rows * columns <= result.len, "{product:?}");
        let memory = &mut self.memory.borrow_mut()[Self::range(result)];
        for row in 0..rows {
            for column in 0..columns {
                let term = |at: usize| {
                    left[row * row_step + at * left_step] * right[column * column_step + at * right_step]
                };
                let sum: f32 = (0..terms).map(term).sum();
                let at = row * columns + column;
                match result.element {
                    Element::Bf16 => memory[at * 2..at * 2 + 2].copy_from_slice(&rounded(sum)),
                    _ => {
                        let before = if add { float_at(memory, at * 4) } else { 0.0 };
                        memory[at * 4..at * 4 + 4].copy_from_slice(&(before + sum).to_le_bytes());
                    }
                }
            }
        }
        Ok(())
    }

    fn zero(&mut self, span: Span) -> Result<(), Trouble> {
        self.memory.borrow_mut()[Self::range(span)].fill(0);
        Ok(())
    }

    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), Trouble> {
        self.memory.borrow_mut()[Self::range(to)][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn ask(&mut self, from: Span) -> Result<(), Trouble> {
        let bytes = self.memory.borrow()[Self::range(from)].to_vec();
        self.asked.push_back(bytes);
        Ok(())
    }

    fn answer(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        into.copy_from_slice(&self.asked.pop_front().expect("something was asked for"));
        Ok(())
    }

    fn download(&self, from: Span, into: &mut [u8]) -> Result<(), Trouble> {
        into.copy_from_slice(&self.memory.borrow()[Self::range(from)][..into.len()]);
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends with its stdin.
        self.program.stdin = None;
        let _ = self.program.wait();
    }
}

/// Compiles the program, once a build of this test.
fn program() -> PathBuf {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda/kernels");
            // Beside the test's own program: another build compiles its own.
            let folder = std::env::current_exe().expect("the test is a program").with_extension("kernels");
            std::fs::create_dir_all(&folder).expect("the build's folder can be written");
            let file = folder.join("program");
            let mut command = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
            command.args(["-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-x", "c++"]);
            command.arg("-I").arg(kernels.join("emulation"));
            command.args(SOURCES.iter().map(|source| kernels.join(source.file)));
            command.args(
                ["block.cpp", "shadow.cpp", "mma.cpp", "program.cpp"]
                    .map(|name| kernels.join("emulation").join(name)),
            );
            let output = command.arg("-o").arg(&file).output().expect("there is a C++ compiler");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            file
        })
        .clone()
}

fn model(architecture: Architecture, tie_word_embeddings: bool, key_value_heads: usize) -> ModelConfig {
    ModelConfig {
        architecture,
        hidden_size: 40,
        intermediate_size: 72,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: key_value_heads,
        head_dim: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings,
        vocab_size: 56,
        max_position_embeddings: 96,
        bos_token_id: None,
        eos_token_id: None,
    }
}

/// One model on both backends, with the same weights.
struct Pair {
    config: ModelConfig,
    cpu: Cpu,
    cuda: Cuda<Host>,
    steps: [Step; 2],
}

/// Longer than a tile of 64 keys, and a multiple of no tile.
const LENGTH: usize = 70;
const ROWS: usize = 2;
const SEED: u64 = 5;

impl Pair {
    fn new(config: ModelConfig, recompute: Recompute, moments: Moments) -> Self {
        let shape = PlanShape { rows: ROWS, length: LENGTH, recompute, moments };
        let transformer = Transformer::new(config.clone(), SEED, &candle_core::Device::Cpu).expect("a model");
        let of_cpu = cpu_plan(&config, shape, 1);
        let cpu = Cpu::new(&transformer, &of_cpu).expect("a backend");
        let plan = Plan::new(&config, shape, needs(&config, &shape));
        let bytes = arena_bytes(&plan, &config);
        let host = Host::new(bytes);
        let mut cuda = Cuda::new(host, &config, plan.clone(), BASE).expect("a backend");
        let mut weights = vec![0.0; plan.parameters];
        cpu.read(State::Weights, 0, &mut weights).expect("weights");
        cuda.write(State::Weights, 0, &weights).expect("weights");
        let steps = [Step::new(&config, of_cpu), Step::new(&config, plan)];
        Self { config, cpu, cuda, steps }
    }

    /// Two micro-batches and an update on each; the outcomes.
    fn step(&mut self, step: u64) -> [Outcome; 2] {
        let mut random = Random::stream(SEED, &format!("ids {step}"));
        let tokens = ROWS * LENGTH;
        let mut ids = || (random.normal().abs() * 20.0) as u32 % self.config.vocab_size as u32;
        let batches: Vec<[Vec<u32>; 2]> = (0..2)
            .map(|_| {
                let inputs = (0..tokens).map(|_| ids()).collect();
                let targets =
                    (0..tokens).map(|token| if token % 9 == 0 { u32::MAX } else { ids() }).collect();
                [inputs, targets]
            })
            .collect();
        let counted = batches.iter().flat_map(|[_, targets]| targets).filter(|&&id| id != u32::MAX).count();
        let scale = 1.0 / counted as f64;
        let loss = LossOptions { scale, z_loss: 1e-3, gradient: true };
        let update = Update {
            step,
            scale,
            lr: 3e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            clip_grad_norm: Some(1.0),
            seed: SEED,
        };
        let mut run = |backend: &mut dyn Backend, of: usize| {
            let program = &mut self.steps[of];
            program.begin(backend)?;
            for [inputs, targets] in &batches {
                program.forward_backward(backend, MicroBatch { inputs, targets, length: LENGTH }, loss)?;
            }
            backend.update(&update)?;
            backend.outcome()
        };
        let outcomes = [run(&mut self.cpu, 0), run(&mut self.cuda, 1)];
        outcomes.map(|outcome| outcome.expect("a step"))
    }

    /// ‖g − g_cpu‖ / ‖g_cpu‖ of each parameter's gradient, by name.
    fn gradient_errors(&self) -> Vec<(String, f64)> {
        let layout = FlatLayout::new(&self.config);
        self.config
            .parameters()
            .into_iter()
            .map(|spec| {
                let range = layout.range(&spec.name);
                let weight = Weight { offset: range.start, len: range.len() };
                let (mut ours, mut cpus) = (vec![0.0; weight.len], vec![0.0; weight.len]);
                self.cuda.gradient(weight, &mut ours).expect("a gradient");
                self.cpu.gradient(weight, &mut cpus).expect("a gradient");
                let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
                let difference = norm(&mut ours.iter().zip(&cpus).map(|(a, b)| f64::from(a - b)));
                (spec.name, difference / norm(&mut cpus.iter().map(|&x| f64::from(x))))
            })
            .collect()
    }
}

/// Activations, their gradients and the weights have 8 bits: each rounding is 2⁻⁹ of a value at most, and some forty lie
/// between a weight's gradient and the CPU's, independent of each other: √40 · 2⁻⁹ is 1.2e-2, and so was the largest.
const GRADIENT: f64 = 2e-2;
/// The loss is a mean over tokens, in which roundings mostly cancel.
const LOSS: f64 = 2e-3;

#[test]
fn gradients_and_losses_of_a_step_are_the_cpus() {
    for (architecture, tie, key_value_heads, recompute) in [
        (Architecture::Qwen3, true, 2, Recompute::None),
        (Architecture::Llama, false, 1, Recompute::NormsAndSwiglu),
        (Architecture::Qwen3, false, 4, Recompute::NormsAndSwiglu),
    ] {
        let mut pair = Pair::new(model(architecture, tie, key_value_heads), recompute, Moments::Float32);
        let [cpu, cuda] = pair.step(1);
        assert!((cpu.nats - cuda.nats).abs() <= LOSS * cpu.nats, "{cpu:?} {cuda:?}");
        assert!((cpu.grad_norm - cuda.grad_norm).abs() <= GRADIENT * cpu.grad_norm, "{cpu:?} {cuda:?}");
        assert!(!cuda.skipped);
        for (name, error) in pair.gradient_errors() {
            assert!(error <= GRADIENT, "{architecture:?}: the gradient of {name} is off by {error}");
        }
    }
}

#[test]
fn updates_follow_the_cpus_and_a_skipped_one_changes_nothing() {
    for moments in [Moments::Float32, Moments::Bfloat16] {
        let mut pair = Pair::new(model(Architecture::Qwen3, true, 2), Recompute::None, moments);
        for step in 1..=2 {
            let [cpu, cuda] = pair.step(step);
            assert!((cpu.nats - cuda.nats).abs() <= 2.0 * LOSS * cpu.nats, "step {step}: {cpu:?} {cuda:?}");
        }
        let plan = pair.cuda.plan.clone();
        let all = |pair: &Pair, state| {
            let mut values = vec![0.0; plan.parameters];
            pair.cuda.read(state, 0, &mut values).expect("a state");
            values
        };
        let before = [State::Weights, State::First, State::Second].map(|state| all(&pair, state));
        // One weight that is not a number makes every loss one.
        let mut damaged = before[0][..8].to_vec();
        damaged[0] = f32::NAN;
        pair.cuda.write(State::Weights, 0, &damaged).expect("weights");
        let [_, cuda] = pair.step(3);
        assert!(cuda.skipped && !cuda.nats.is_finite(), "{cuda:?}");
        pair.cuda.write(State::Weights, 0, &before[0][..8]).expect("weights");
        let after = [State::Weights, State::First, State::Second].map(|state| all(&pair, state));
        assert!(before == after, "a skipped update has changed something");
    }
}

fn options(moments: Moments, device: Device) -> TrainOptions {
    TrainOptions {
        model: model(Architecture::Qwen3, true, 2),
        sequence_length: LENGTH,
        micro_batch_size: 1,
        global_batch_size: ROWS,
        optimizer: OptimizerOptions {
            lr: 3e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            clip_grad_norm: Some(1.0),
            moments,
        },
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            warmup_steps: 0,
            final_lr_ratio: 0.1,
            decay_ratio: 0.2,
        },
        seed: SEED,
        device,
        init_from: None,
        threads: Some(1),
        z_loss: 0.0,
        recompute: Recompute::None,
        max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
    }
}

/// An engine as on a GPU.
fn on_kernels(options: &TrainOptions) -> Engine {
    let TrainOptions { model, sequence_length: length, micro_batch_size: rows, recompute, .. } = options;
    let shape =
        PlanShape { rows: *rows, length: *length, recompute: *recompute, moments: options.optimizer.moments };
    let plan = super::plan(model, shape).expect("the kernels take the model");
    let host = Host::new(arena_bytes(&plan, model));
    let cuda = Cuda::new(host, model, plan.clone(), BASE).expect("a backend");
    Engine::on_device(options, Box::new(cuda), plan).expect("an engine")
}

fn batch(step: u64) -> Batch {
    let mut random = Random::stream(SEED, &format!("batch {step}"));
    let tokens = ROWS * LENGTH;
    let ids: Vec<u32> = (0..=tokens).map(|_| (random.normal().abs() * 20.0) as u32 % 56).collect();
    Batch {
        inputs: ids[..tokens].to_vec(),
        targets: ids[1..].to_vec(),
        rows: ROWS,
        sequence_length: LENGTH,
        counted: tokens as u64,
    }
}

fn loss(engine: &mut Engine, step: u64) -> f64 {
    match engine.step(&batch(step), 0.0, &|| false).expect("a step") {
        Some(StepOutcome::Done(stats)) => stats.loss,
        other => panic!("{other:?}"),
    }
}

fn states(engine: &Engine) -> [Vec<f32>; 3] {
    [State::Weights, State::First, State::Second].map(|state| {
        let mut values = vec![0.0; engine.plan().parameters];
        engine.backend.read(state, 0, &mut values).expect("a state");
        values
    })
}

#[test]
fn a_run_goes_on_on_the_other_kind_of_hardware_with_every_bit_of_its_state() {
    for moments in [Moments::Float32, Moments::Bfloat16] {
        let mut gpu = on_kernels(&options(moments, Device::Cuda(0)));
        let mut cpu = Engine::new(&options(moments, Device::Cpu)).expect("an engine");
        assert!(states(&gpu) == states(&cpu), "a run begins with the same weights wherever it does");
        for step in 1..=2 {
            let [ours, cpus] = [&mut gpu, &mut cpu].map(|engine| loss(engine, step));
            assert!((ours - cpus).abs() <= 2.0 * LOSS * cpus, "step {step}: {ours} {cpus}");
        }
        for from_gpu in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let (from, to) = if from_gpu { (&gpu, &mut cpu) } else { (&cpu, &mut gpu) };
            if from_gpu {
                // The copy that a checkpoint is written from is the same as the checkpoint.
                from.snapshot().expect("a copy").expect("memory").write(directory.path()).expect("written");
            } else {
                from.save(directory.path()).expect("written");
            }
            to.load(directory.path()).expect("read");
            assert!(states(from) == states(to) && from.steps() == to.steps());
            let [ours, cpus] = [&mut gpu, &mut cpu].map(|engine| loss(engine, 3 + u64::from(from_gpu)));
            assert!((ours - cpus).abs() <= 2.0 * LOSS * cpus, "{ours} {cpus}");
        }
    }
}

#[test]
fn steps_settled_while_the_next_is_under_way_change_the_same_bits() {
    let made = || {
        let mut options = options(Moments::Float32, Device::Cuda(0));
        options.schedule = Schedule { warmup_steps: 3, ..options.schedule };
        on_kernels(&options)
    };
    // The third batch makes a gradient that is not finite, so that the number of the update after it depends on it.
    let spoil = |engine: &mut Engine, step: u64| {
        let first = if step == 3 { f32::INFINITY } else { 0.01 };
        engine.backend.write(State::Weights, 0, &[first; 8]).expect("written");
    };
    let (mut alone, mut expected) = (made(), Vec::new());
    for step in 1..=5 {
        spoil(&mut alone, step);
        expected.push(alone.step(&batch(step), 0.0, &|| false).expect("a step").expect("not stopped"));
    }
    assert!(matches!(expected[2], StepOutcome::Skipped { .. }) && alone.steps() == 4, "{expected:?}");

    let (mut engine, mut outcomes) = (made(), Vec::new());
    assert!(engine.goes_on());
    for step in 1..=5 {
        spoil(&mut engine, step);
        let gradients = engine.gradients(&batch(step), &|| false).expect("gradients").expect("not stopped");
        if step > 1 {
            outcomes.push(engine.settle().expect("a step"));
        }
        engine.update(gradients, 0.0).expect("an update");
    }
    outcomes.push(engine.settle().expect("a step"));
    let told = |outcomes: &[StepOutcome]| format!("{outcomes:?}");
    assert_eq!(told(&outcomes), told(&expected), "not a number is not equal to itself");
    assert!(states(&engine) == states(&alone) && engine.steps() == 4);
    // An evaluation after it is not answered by what a step asked for.
    let nats =
        |engine: &mut Engine| engine.evaluate(&batch(9), &|| false).expect("nats").expect("not stopped");
    assert_eq!(nats(&mut engine).to_bits(), nats(&mut alone).to_bits());
}

#[test]
fn a_text_is_continued_by_the_weights_that_the_device_has() {
    let mut gpu = on_kernels(&options(Moments::Float32, Device::Cuda(0)));
    let mut cpu = Engine::new(&options(Moments::Float32, Device::Cpu)).expect("an engine");
    loss(&mut gpu, 1);
    let directory = tempfile::tempdir().expect("a directory");
    gpu.save(directory.path()).expect("written");
    cpu.load(directory.path()).expect("read");
    // At most a sequence; a tile of 64 tokens is whole at 64, and begun at 65.
    for tokens in [1, 7, 64, 65, LENGTH] {
        let ids: Vec<u32> = (0..tokens as u32).map(|token| token * 7 % 56).collect();
        let expected = Decoder::new(cpu.transformer()).expect("a decoder").read(&ids).expect("logits");
        let logits = gpu.logits(&ids).expect("logits");
        let largest = expected.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        for (ours, candles) in logits.iter().zip(&expected) {
            assert!((ours - candles).abs() <= 2e-2 * largest, "{tokens} tokens: {ours} {candles}");
        }
    }
    let options = SamplerOptions { temperature: 1.0, top_k: None, top_p: None, seed: 3, vocabulary: 50 };
    // Longer than a sequence: the older half is dropped on the way.
    let mut text = |prompt: &[u32]| gpu.generate(prompt, LENGTH + 5, options.clone(), &|| false);
    let written = text(&[1, 2, 3]).expect("a text").expect("nobody stops it");
    assert_eq!(written.len(), LENGTH + 5);
    assert!(written.iter().all(|&id| id < 50));
    assert_eq!(text(&[1, 2, 3]).expect("a text").expect("nobody stops it"), written);
    assert_eq!(text(&[]).expect_err("no prompt").code, "USAGE");
    assert_eq!(text(&[56]).expect_err("no such token").code, "TOKENIZER_MISMATCH");
    assert_eq!(gpu.generate(&[1], 4, options, &|| true).expect("a text"), None);
}
