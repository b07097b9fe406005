//! What the CUDA backend gives a GPU to do, read from a list: no GPU is needed, and none could say more of it.
use candlewick_cuda::{
    Address, Argument, Element, Form, Launch, Product, Queue, Span, Trouble, WORKSPACE_BYTES,
};
use candlewick_feed::FeedMemory;
use candlewick_model::{Architecture, ModelConfig};
use candlewick_train::{
    Device, EngineShape, Moments, Surroundings,
    backend::{
        Backend, LossOptions, State, Update, Write,
        cuda::{Cuda, arena_bytes, check, needs},
    },
    plan::{Act, Plan, PlanShape, Recompute, attention_shape},
    run_memory,
};
use std::cell::RefCell;

/// One piece of work.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Launch(Launch),
    Product(Product),
    Zero(Span),
    Upload(Span, Vec<u8>),
    Download(Span, usize),
}

/// A queue that does nothing but remember.
#[derive(Debug, Default)]
struct List(RefCell<Vec<Work>>);

impl List {
    fn add(&self, work: Work) -> Result<(), Trouble> {
        self.0.borrow_mut().push(work);
        Ok(())
    }
}

impl Queue for List {
    fn launch(&mut self, launch: &Launch) -> Result<(), Trouble> {
        self.add(Work::Launch(launch.clone()))
    }

    fn product(&mut self, product: &Product) -> Result<(), Trouble> {
        self.add(Work::Product(*product))
    }

    fn zero(&mut self, span: Span) -> Result<(), Trouble> {
        self.add(Work::Zero(span))
    }

    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), Trouble> {
        self.add(Work::Upload(to, bytes.to_vec()))
    }

    fn ask(&mut self, from: Span) -> Result<(), Trouble> {
        self.add(Work::Download(from, from.bytes()))
    }

    fn answer(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        into.fill(0);
        Ok(())
    }

    fn download(&self, from: Span, into: &mut [u8]) -> Result<(), Trouble> {
        into.fill(0);
        self.add(Work::Download(from, into.len()))
    }
}

const ARENA: Address = Address(1 << 40);
const ROWS: usize = 3;
const LENGTH: usize = 70;

fn model(head_dim: usize) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        vocab_size: 56,
        max_position_embeddings: 96,
        bos_token_id: None,
        eos_token_id: None,
    }
}

fn plan(model: &ModelConfig, moments: Moments) -> Plan {
    let shape = PlanShape { rows: ROWS, length: LENGTH, recompute: Recompute::None, moments };
    Plan::new(model, shape, needs(model, &shape))
}

struct Machine {
    backend: Cuda<List>,
    plan: Plan,
    model: ModelConfig,
    bytes: usize,
}

impl Machine {
    fn new(head_dim: usize, moments: Moments) -> Self {
        let model = model(head_dim);
        let plan = plan(&model, moments);
        let bytes = arena_bytes(&plan, &model);
        let backend = Cuda::new(List::default(), &model, plan.clone(), ARENA).expect("it fits");
        Self { backend, plan, model, bytes }
    }

    /// What was given to do since the last time.
    fn work(&self) -> Vec<Work> {
        self.backend.queue().0.take()
    }

    /// Every method once, forward, back and update.
    fn everything(&mut self) {
        let Self { backend: b, plan, model, .. } = self;
        let (tokens, shape) = (ROWS * LENGTH, attention_shape(model, ROWS, LENGTH));
        let (state, w) = (plan.blocks[0], plan.weights[0]);
        let ids: Vec<u32> = (0..tokens as u32).map(|token| token * 7 % 50).collect();
        let run = |b: &mut Cuda<List>| {
            b.begin()?;
            b.load(&ids, &ids)?;
            b.embedding(state.residual, plan.embedding, tokens)?;
            b.rms_norm(state.normed, state.rstd, state.residual, w.input_norm, tokens, 1e-6)?;
            b.linear(state.qkv, state.normed, w.qkv, tokens)?;
            b.qk_norm_rope(state.qk, state.qkv, w.qk_norm, shape, 1e-6)?;
            b.attention(state.mixed, state.log_sums, state.qk, state.qkv, shape)?;
            b.linear(plan.delta, state.mixed, w.o, tokens)?;
            let (x, delta) = (state.residual, plan.delta);
            let (sum, y) = (state.middle, state.middle_normed);
            b.add_rms_norm(sum, y, state.middle_rstd, x, delta, w.post_norm, tokens, 1e-6)?;
            b.linear(state.gate_up, state.middle_normed, w.gate_up, tokens)?;
            b.swiglu(state.gated, state.gate_up, tokens, 40)?;
            let loss = LossOptions { scale: 0.25, z_loss: 0.0, gradient: true };
            b.cross_entropy(plan.logits, 64, 32, 56, loss)?;
            b.swiglu_backward(plan.d_gate_up, Some(state.gated), plan.d_gated, state.gate_up, tokens, 40)?;
            let (dx, dw) = ((plan.d_residual, Write::Add), (w.post_norm, Write::Replace));
            b.rms_norm_backward(dx, dw, plan.d_normed, state.middle, state.middle_rstd, tokens)?;
            let (dqkv, dout) = (plan.d_qkv, plan.d_mixed);
            b.attention_backward(dqkv, dout, state.mixed, state.log_sums, state.qk, state.qkv, shape)?;
            b.qk_norm_rope_backward(dqkv, state.qkv, w.qk_norm, shape, 1e-6, Write::Add)?;
            b.linear_backward_input(plan.d_normed, dqkv, w.qkv, tokens)?;
            b.linear_backward_weight(w.qkv, dqkv, state.normed, tokens, Write::Add)?;
            b.embedding_backward(plan.embedding, plan.d_residual, tokens, Write::Add)?;
            b.update(&update())?;
            b.outcome()?;
            b.write(State::Weights, 8, &[0.5; 16])
        };
        run(b).expect("the list takes everything");
    }
}

fn update() -> Update {
    Update {
        step: 3,
        scale: 1.0,
        lr: 1e-3,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.1,
        clip_grad_norm: Some(1.0),
        seed: 5,
    }
}

fn launches(work: &[Work]) -> Vec<&Launch> {
    work.iter()
        .filter_map(|work| match work {
            Work::Launch(launch) => Some(launch),
            _ => None,
        })
        .collect()
}

#[test]
fn everything_lies_in_the_memory_that_was_taken() {
    for (head_dim, moments) in [(64, Moments::Float32), (128, Moments::Bfloat16)] {
        let mut machine = Machine::new(head_dim, moments);
        machine.everything();
        let inside = |span: Span, bytes: usize| {
            let end = ARENA.plus(machine.bytes);
            assert!(
                bytes <= span.bytes() && span.at >= ARENA && span.at.plus(bytes) <= end,
                "{span:?} {bytes}"
            );
        };
        for work in machine.work() {
            match work {
                Work::Launch(launch) => {
                    for argument in launch.arguments {
                        if let Argument::Span(span) = argument {
                            inside(span, span.bytes());
                            assert!(span.at.0.is_multiple_of(8), "{:?}: {span:?}", launch.geometry);
                        }
                    }
                }
                Work::Product(Product { shape, left, right, result }) => {
                    let (x, y) = (shape.tokens * shape.inputs, shape.tokens * shape.outputs);
                    let w = shape.outputs * shape.inputs;
                    let [a, b, c] = match shape.form {
                        Form::Forward => [x, w, y],
                        Form::BackwardInput => [y, w, x],
                        Form::BackwardWeight => [y, x, w],
                    };
                    inside(left, a * 2);
                    inside(right, b * 2);
                    let of_weight = shape.form == Form::BackwardWeight;
                    assert_eq!(result.element, if of_weight { Element::F32 } else { Element::Bf16 });
                    inside(result, c * result.element.size());
                }
                Work::Zero(span) => inside(span, span.bytes()),
                Work::Download(span, bytes) => inside(span, bytes),
                Work::Upload(span, bytes) => inside(span, bytes.len()),
            }
        }
    }
}

#[test]
fn products_accumulate_where_the_step_says_so_and_are_the_three_of_a_linear_map() {
    let mut machine = Machine::new(64, Moments::Float32);
    machine.work();
    let (state, w) = (machine.plan.blocks[0], machine.plan.weights[0]);
    let b = &mut machine.backend;
    b.linear(state.qkv, state.normed, w.qkv, 9).expect("listed");
    b.linear_backward_input(state.normed, state.qkv, w.qkv, 9).expect("listed");
    b.linear_backward_weight(w.qkv, state.qkv, state.normed, 9, Write::Replace).expect("listed");
    b.linear_backward_weight(w.qkv, state.qkv, state.normed, 9, Write::Add).expect("listed");
    let act = |act: Act| ARENA.plus(act.offset * 2);
    let product = |work: &Work| match work {
        Work::Product(product) => *product,
        other => panic!("{other:?}"),
    };
    let products: Vec<_> = machine.work().iter().map(product).collect();
    let matrix = products[0].right.at;
    let operands: Vec<_> =
        products.iter().map(|p| (p.shape.form, p.left.at, p.right.at, p.shape.add)).collect();
    assert_eq!(
        operands,
        [
            (Form::Forward, act(state.normed), matrix, false),
            (Form::BackwardInput, act(state.qkv), matrix, false),
            (Form::BackwardWeight, act(state.qkv), act(state.normed), false),
            (Form::BackwardWeight, act(state.qkv), act(state.normed), true),
        ]
    );
    for product in &products {
        assert_eq!((product.shape.tokens, product.shape.outputs, product.shape.inputs), (9, 512, 24));
    }
    assert_eq!(products[2].result, products[3].result);
}

#[test]
fn tokens_are_handed_over_by_id_and_equal_ids_in_their_order() {
    let mut machine = Machine::new(64, Moments::Float32);
    machine.work();
    machine.backend.load(&[5, 2, 5, 9, 2, 5], &[1, 2, 3, 4, 5, u32::MAX]).expect("listed");
    let uploads: Vec<Vec<u32>> = machine
        .work()
        .iter()
        .map(|work| match work {
            Work::Upload(_, bytes) => bytes
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
                .collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        uploads,
        [
            vec![5, 2, 5, 9, 2, 5],
            vec![1, 2, 3, 4, 5, u32::MAX],
            vec![1, 4, 0, 2, 5, 3],
            vec![0, 2, 5, 6],
            vec![2, 5, 9],
        ]
    );
}

#[test]
fn an_update_decays_matrices_alone_and_covers_every_parameter_once() {
    let mut machine = Machine::new(64, Moments::Bfloat16);
    machine.work();
    machine.backend.update(&update()).expect("listed");
    let work = machine.work();
    let names: Vec<_> = launches(&work).iter().map(|launch| launch.geometry.kernel).collect();
    assert_eq!(names, ["sum_of_squares", "finish_norm", "adamw_bf16_moments", "adamw_bf16_moments"]);
    let of = |launch: &Launch| match launch.arguments[..] {
        [.., Argument::I64(first), Argument::I64(count)] => (first, count, launch.arguments[7]),
        _ => panic!("{launch:?}"),
    };
    let (decayed, all) = (machine.plan.decayed as i64, machine.plan.parameters as i64);
    let all_launches = launches(&work);
    assert_eq!(of(all_launches[2]), (0, decayed, Argument::F32(1.0 - 1e-3 * 0.1)));
    assert_eq!(of(all_launches[3]), (decayed, all - decayed, Argument::F32(1.0)));
}

#[test]
fn what_is_foretold_of_the_gpu_is_what_is_taken() {
    for (head_dim, moments) in [(64, Moments::Float32), (128, Moments::Bfloat16)] {
        let Machine { model, plan, bytes, .. } = Machine::new(head_dim, moments);
        let shape = EngineShape {
            model,
            sequence_length: LENGTH,
            micro_batch_size: ROWS,
            global_batch_size: 4 * ROWS,
            threads: 1,
            recompute: Recompute::None,
            moments,
            device: Device::Cuda(0),
        };
        assert_eq!(shape.plan(), plan);
        let feed = FeedMemory {
            sources: 0,
            shuffle_buffer_size: 0,
            batch_size: 0,
            document_bytes: 0,
            batch_tokens: 0,
            threads: 0,
        };
        let around = Surroundings { feed, tokenizer: 0, held_out_documents: 0, process: 0, available: None };
        let memory = run_memory(&shape, &around);
        let device = memory.device.expect("it runs on a GPU");
        assert_eq!(device.required, (bytes + WORKSPACE_BYTES) as u64 + device.driver);
        let parts = [device.weights, device.gradients, device.moments, device.activations, device.logits];
        assert_eq!(parts.iter().sum::<u64>() + device.scratch + device.driver, device.required);
        // Two bytes that products read and four of the master copy a parameter; two or four of each moment.
        let n = plan.parameters as u64;
        let moment = if moments == Moments::Float32 { 4 } else { 2 };
        assert_eq!((device.weights, device.gradients), (6 * n, 4 * n));
        assert_eq!(device.moments, 2 * moment * n);
        // The host has none of it.
        assert_eq!([memory.weights, memory.gradients, memory.moments, memory.activations], [0; 4]);
    }
}

#[test]
fn models_that_the_kernels_are_not_made_for_are_refused_by_their_key() {
    assert!(check(&model(64)).is_ok());
    for (key, refused) in [
        ("model.head_dim", ModelConfig { head_dim: 32, ..model(64) }),
        ("model.hidden_size", ModelConfig { hidden_size: 20, ..model(64) }),
        ("model.intermediate_size", ModelConfig { intermediate_size: 42, ..model(64) }),
        ("model.vocab_size", ModelConfig { vocab_size: 50, ..model(64) }),
    ] {
        let error = check(&refused).expect_err(key);
        assert_eq!(error.code, "CONFIG_INVALID");
        assert!(error.message.starts_with(key) && error.hint.contains("--device cpu"), "{error:?}");
    }
}

/// As the compiler wrote them: a kernel that changes without its launch would read past its arguments.
#[cfg(feature = "cuda")]
#[test]
fn every_launch_has_the_arguments_of_its_kernel() {
    for (head_dim, moments) in [(64, Moments::Float32), (128, Moments::Bfloat16)] {
        let mut machine = Machine::new(head_dim, moments);
        machine.everything();
        for launch in launches(&machine.work()) {
            let given: Vec<_> = launch.arguments.iter().map(|argument| argument.size()).collect();
            assert_eq!(
                candlewick_cuda::images::parameters(launch.geometry.kernel),
                Some(given),
                "{launch:?}"
            );
        }
    }
}
