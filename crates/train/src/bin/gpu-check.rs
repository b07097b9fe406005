//! Holds a GPU to the CPU, then says how fast it is: one program for a machine that has a GPU, its driver and CUDA's
//! libraries, and neither Node nor cargo. `npm run build:cuda -- --gpu-check` builds it.
//!
//! `gpu-check [--checks]`: with `--checks` nothing is timed. Exit code 0 where everything holds, 1 where something does
//! not, 3 where there is no GPU to check, with what is missing.

#[cfg(all(feature = "cuda", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    check::run(std::env::args().any(|argument| argument == "--checks"))
}

#[cfg(not(all(feature = "cuda", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("CUDA_UNAVAILABLE: this build has no CUDA");
    eprintln!("hint: under Linux, npm run build:cuda -- --gpu-check");
    std::process::ExitCode::from(3)
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod check {
    use candlewick_cuda::{Report, Times, free_memory, kernels::SOURCES, probe};
    use candlewick_feed::{Batch, FeedMemory};
    use candlewick_model::{Architecture, FlatLayout, ModelConfig, ParameterSpec, Random};
    use candlewick_train::{
        DEFAULT_MAX_SKIPPED_STEPS, Device, Engine, EngineShape, Moments, OptimizerOptions, Recompute,
        Schedule, ScheduleKind, StepOutcome, Surroundings, TrainError, TrainOptions, backend::State,
        run_memory,
    };
    use std::{
        process::{Command, ExitCode},
        time::Instant,
    };

    /// ‖g − g_cpu‖ / ‖g_cpu‖ of a parameter's gradient, bf16 against f32.
    const GRADIENT: f64 = 2e-2;
    /// Of the loss of one step, and of fifty.
    const LOSS: f64 = 2e-3;
    const CURVE: f64 = 1e-2;

    pub(super) fn run(checks_only: bool) -> ExitCode {
        let report = probe(0, true);
        machine(&report);
        if let Some(trouble) = &report.trouble {
            eprintln!("{}: {}\nhint: {}", trouble.code, trouble.message, trouble.hint);
            return ExitCode::from(3);
        }
        let mut failed = 0;
        match checks() {
            Ok(wrong) => failed += wrong,
            Err(error) => {
                println!("FAILED {}: {}", error.code, error.message);
                failed += 1;
            }
        }
        if !checks_only {
            let name = report.gpus.first().map_or("", |gpu| gpu.name.as_str());
            clocks("before");
            for (label, model) in sizes() {
                for length in [1024, 2048] {
                    if let Err(error) = benchmark(label, &model, length, name) {
                        println!("| {label} | {length} | {}: {} |", error.code, error.message);
                        failed += 1;
                    }
                }
            }
            clocks("after");
        }
        println!("{}", if failed == 0 { "everything holds".into() } else { format!("{failed} do not hold") });
        ExitCode::from(u8::from(failed > 0))
    }

    fn machine(report: &Report) {
        if let Some(driver) = &report.driver {
            println!("driver {} (CUDA {})", driver.version.as_deref().unwrap_or("?"), driver.cuda);
        }
        for gpu in &report.gpus {
            println!("GPU {}, {:.1} GB, {:?}", gpu.name, gpu.total as f64 / 1e9, gpu.capability);
        }
        for library in &report.libraries {
            println!("{} at {}", library.name, library.path.display());
        }
    }

    fn clocks(when: &str) {
        let fields =
            "--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active";
        match Command::new("nvidia-smi").args([fields, "--format=csv,noheader"]).output() {
            Ok(told) => println!("clocks {when}: {}", String::from_utf8_lossy(&told.stdout).trim()),
            Err(error) => println!("clocks {when}: nvidia-smi does not start ({error})"),
        }
    }

    fn options(model: ModelConfig, length: usize, rows: usize, device: Device) -> TrainOptions {
        TrainOptions {
            model,
            sequence_length: length,
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
            seed: 1,
            device,
            init_from: None,
            threads: None,
            z_loss: 0.0,
            recompute: Recompute::None,
            max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
        }
    }

    fn small(architecture: Architecture, head_dim: usize, key_value_heads: usize) -> ModelConfig {
        ModelConfig {
            architecture,
            hidden_size: 256,
            intermediate_size: 520,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: key_value_heads,
            head_dim,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: architecture == Architecture::Qwen3,
            vocab_size: 512,
            max_position_embeddings: 200,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    /// Tokens that follow each other half of the time, so that there is something to learn.
    fn batch(options: &TrainOptions, step: u64) -> Batch {
        let (rows, length) = (options.global_batch_size, options.sequence_length);
        let vocabulary = options.model.vocab_size as u64;
        let mut random = Random::stream(1, &format!("batch {step}"));
        let mut ids = vec![0u32; rows * length + 1];
        for at in 1..ids.len() {
            let drawn = random.bits();
            let next = if drawn & 1 == 0 { ids[at - 1] + 1 } else { (drawn >> 1) as u32 };
            ids[at] = next % vocabulary as u32;
        }
        Batch {
            inputs: ids[..rows * length].to_vec(),
            targets: ids[1..].to_vec(),
            rows,
            sequence_length: length,
            counted: (rows * length) as u64,
        }
    }

    fn step(engine: &mut Engine, number: u64) -> Result<(f64, f64), TrainError> {
        let batch = batch(engine.options(), number);
        match engine.step(&batch, 0.0, &|| false)? {
            Some(StepOutcome::Done(stats)) => Ok((stats.loss, stats.grad_norm)),
            other => Err(TrainError::new("INTERNAL", format!("{other:?}"), "")),
        }
    }

    fn told(what: &str, found: f64, bound: f64) -> usize {
        let holds = found <= bound;
        println!("{} {what}: {found:.2e} (bound {bound:.0e})", if holds { "ok    " } else { "FAILED" });
        usize::from(!holds)
    }

    /// How many do not hold.
    fn checks() -> Result<usize, TrainError> {
        let mut wrong = 0;
        let times = Times::default();
        for (architecture, head_dim, key_value_heads, recompute, moments) in [
            (Architecture::Qwen3, 64, 2, Recompute::None, Moments::Float32),
            (Architecture::Llama, 128, 1, Recompute::NormsAndSwiglu, Moments::Bfloat16),
            (Architecture::Qwen3, 128, 4, Recompute::NormsAndSwiglu, Moments::Float32),
        ] {
            let model = small(architecture, head_dim, key_value_heads);
            // A multiple of no tile.
            let mut options = options(model.clone(), 197, 3, Device::Cpu);
            (options.recompute, options.optimizer.moments) = (recompute, moments);
            let mut cpu = Engine::new(&options)?;
            options.device = Device::Cuda(0);
            let mut gpu = Engine::timed(&options, times.clone())?;
            let name = format!("{architecture:?}, head_dim {head_dim}, {recompute:?}, {moments:?}");
            let ((loss, _), (ours, _)) = (step(&mut cpu, 1)?, step(&mut gpu, 1)?);
            wrong += told(&format!("{name}: loss of a step"), (ours / loss - 1.0).abs(), LOSS);
            let (expected, found) = (cpu.gradient()?, gpu.gradient()?);
            let layout = FlatLayout::new(&model);
            for spec in model.parameters() {
                let range = layout.range(&spec.name);
                let (expected, found) = (&expected[range.clone()], &found[range]);
                let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
                let apart = square(&mut expected.iter().zip(found).map(|(a, b)| f64::from(a - b)));
                let error = (apart / square(&mut expected.iter().map(|&x| f64::from(x)))).sqrt();
                wrong += told(&format!("{name}: gradient of {}", spec.name), error, GRADIENT);
            }
        }
        let ran = times.lock().expect("nobody panics with it");
        for kernel in SOURCES.iter().flat_map(|source| source.kernels) {
            if !ran.contains_key(kernel) {
                println!("FAILED {kernel} did not run");
                wrong += 1;
            }
        }
        drop(ran);
        let on = |device| Engine::new(&options(small(Architecture::Qwen3, 64, 2), 197, 3, device));
        let (mut cpu, mut gpu, mut again) = (on(Device::Cpu)?, on(Device::Cuda(0))?, on(Device::Cuda(0))?);
        let (mut most, mut same) = (0.0f64, true);
        for number in 1..=50 {
            let ((expected, _), ours) = (step(&mut cpu, number)?, step(&mut gpu, number)?);
            same &= ours == step(&mut again, number)?;
            most = most.max((ours.0 / expected - 1.0).abs());
            if number % 10 == 0 {
                println!("       step {number}: loss {:.4}, on the CPU {expected:.4}", ours.0);
            }
        }
        wrong += told("losses of 50 steps", most, CURVE);
        same &= gpu.state(State::Weights)? == again.state(State::Weights)?;
        wrong += told("bits that differ between two runs", f64::from(u8::from(!same)), 0.0);
        Ok(wrong)
    }

    /// Models to time, by their size.
    fn sizes() -> Vec<(&'static str, ModelConfig)> {
        let model = |hidden_size, intermediate_size, num_hidden_layers, heads, key_value_heads, head_dim| {
            ModelConfig {
                architecture: Architecture::Qwen3,
                hidden_size,
                intermediate_size,
                num_hidden_layers,
                num_attention_heads: heads,
                num_key_value_heads: key_value_heads,
                head_dim,
                rope_theta: 10_000.0,
                rms_norm_eps: 1e-6,
                // As in PyTorch's side, gpu_baseline.py.
                tie_word_embeddings: true,
                vocab_size: 50_304,
                max_position_embeddings: 2048,
                bos_token_id: None,
                eos_token_id: None,
            }
        };
        vec![
            ("124M", model(768, 2048, 12, 12, 12, 64)),
            ("0.5B", model(1280, 3584, 20, 20, 10, 64)),
            ("1.1B", model(2048, 5632, 20, 16, 8, 128)),
            ("1.5B", model(2048, 6144, 28, 16, 8, 128)),
        ]
    }

    /// FLOPs of a token: 6 · N in products + 6 · layers · T · heads · head_dim.
    fn flops(model: &ModelConfig, length: usize) -> (f64, f64) {
        let in_blocks = |spec: &ParameterSpec| spec.decay && spec.name.contains(".layers.");
        let blocks: usize =
            model.parameters().iter().filter(|spec| in_blocks(spec)).map(ParameterSpec::len).sum();
        let n = blocks + model.vocab_size * model.hidden_size;
        let attention = model.num_hidden_layers * length * model.query_size();
        (6.0 * n as f64, 6.0 * attention as f64)
    }

    /// Dense bf16 peak by the name of the GPU.
    fn peak(name: &str) -> Option<f64> {
        let peaks = [
            ("H100 PCIe", 756e12),
            ("H100 NVL", 835e12),
            ("H100", 989e12),
            ("H200 NVL", 835e12),
            ("H200", 989e12),
            ("A100", 312e12),
        ];
        peaks.iter().find(|(part, _)| name.contains(part)).map(|(_, peak)| *peak)
    }

    fn foretold(options: &TrainOptions) -> u64 {
        let feed = FeedMemory {
            sources: 0,
            shuffle_buffer_size: 0,
            batch_size: 0,
            document_bytes: 0,
            batch_tokens: 0,
            threads: 0,
        };
        let around = Surroundings { feed, tokenizer: 0, held_out_documents: 0, process: 0, available: None };
        run_memory(&EngineShape::from(options), &around).device.map_or(0, |device| device.required)
    }

    fn benchmark(label: &str, model: &ModelConfig, length: usize, gpu: &str) -> Result<(), TrainError> {
        let free = free_memory(0).unwrap_or(0);
        let fits = |rows: usize, recompute| {
            let mut options = options(model.clone(), length, rows, Device::Cuda(0));
            options.recompute = recompute;
            Some(options).filter(|options| foretold(options) <= free / 100 * 95)
        };
        let rows = [32, 16, 8, 4, 2, 1];
        let tries =
            rows.into_iter().flat_map(|rows| [(rows, Recompute::None), (rows, Recompute::NormsAndSwiglu)]);
        let Some(options) = tries.into_iter().find_map(|(rows, recompute)| fits(rows, recompute)) else {
            println!("| {label} | {length} | does not fit into {:.1} GB |", free as f64 / 1e9);
            return Ok(());
        };
        let mut engine = Engine::new(&options)?;
        for number in 1..=3 {
            step(&mut engine, number)?;
        }
        let taken = free.saturating_sub(free_memory(0).unwrap_or(free));
        let data = batch(&options, 4);
        let mut seconds: Vec<f64> = (0..7)
            .map(|_| {
                let began = Instant::now();
                engine.step(&data, 0.0, &|| false).map(|_| began.elapsed().as_secs_f64())
            })
            .collect::<Result<_, _>>()?;
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let tokens = (options.global_batch_size * length) as f64 / median;
        let (products, attention) = flops(model, length);
        let mfu = peak(gpu).map_or("peak not known".into(), |peak| {
            format!(
                "MFU {:.1} % = ({products:.4e} + {attention:.4e}) FLOP · {tokens:.0} tok/s ÷ {peak:.3e} FLOP/s \
                 (6 · parameters in products + 6 · layers · T · heads · head_dim)",
                100.0 * (products + attention) * tokens / peak
            )
        });
        println!(
            "| {label} | {length} | {} rows, {:?} | {tokens:.0} tok/s, {:.1} ms a step ({:.1} to {:.1}) | {mfu} | memory {:.2} GB, foretold {:.2} GB |",
            options.micro_batch_size,
            options.recompute,
            1e3 * median,
            1e3 * seconds[0],
            1e3 * seconds[seconds.len() - 1],
            taken as f64 / 1e9,
            foretold(&options) as f64 / 1e9,
        );
        drop(engine);
        let times = Times::default();
        let mut engine = Engine::timed(&options, times.clone())?;
        step(&mut engine, 1)?;
        times.lock().expect("nobody panics with it").clear();
        step(&mut engine, 2)?;
        let times = times.lock().expect("nobody panics with it");
        let mut sorted: Vec<_> = times.iter().collect();
        sorted.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
        for (name, (calls, time)) in sorted {
            println!("       {:>9.3} ms in {calls:>5} of {name}", 1e3 * time.as_secs_f64());
        }
        Ok(())
    }
}
