//! The kernels of a step on a GPU: bf16 activations and products, f32 master weights, gradients and sums.
//!
//! Every method turns into launches, products and copies that a [`Queue`] is given in order. Grids depend on the shape
//! alone and never on the GPU, so that sums have the same order on every one.

use super::{Backend, LossOptions, Outcome, State, Update, Write};
use crate::{
    Device, Moments, TrainError,
    plan::{Act, F32, Matrix, Needs, Plan, PlanShape, Weight},
};
use candlewick_cuda::{
    Address, Argument, Element, Form, Launch, Product, ProductShape, Queue, STAGES, Span, Trouble,
    kernels::{self, Geometry},
};
use candlewick_model::{
    ModelConfig,
    kernels::{AttentionShape, RotaryTable},
};

/// Logits that exist at a time: 256 MB of them. More makes the products no faster.
const LOGITS: usize = 1 << 27;
/// Values that a state is copied by at a time.
const CHUNK: usize = 1 << 22;
impl From<Trouble> for TrainError {
    fn from(Trouble { code, message, hint }: Trouble) -> Self {
        Self::new(code, message, hint)
    }
}

/// What the kernels take of a model; refuses what they are not made for.
pub fn check(model: &ModelConfig) -> Result<(), TrainError> {
    let refuse = |key: &str, value: usize, allowed: &str| {
        Err(TrainError::config(
            format!("{key} is {value}, and on a GPU it has to be {allowed}"),
            format!("change {key}, or train with --device cpu"),
        ))
    };
    if !kernels::HEAD_DIMS.contains(&model.head_dim) {
        return refuse("model.head_dim", model.head_dim, "64 or 128");
    }
    for (key, value) in [
        ("model.hidden_size", model.hidden_size),
        ("model.intermediate_size", model.intermediate_size),
        ("model.vocab_size", model.vocab_size),
    ] {
        if !value.is_multiple_of(8) {
            return refuse(key, value, "a multiple of 8");
        }
    }
    if model.hidden_size > kernels::MAX_WIDTH {
        return refuse("model.hidden_size", model.hidden_size, &format!("{} at most", kernels::MAX_WIDTH));
    }
    Ok(())
}

/// What the plan has to set aside for these kernels.
pub fn needs(model: &ModelConfig, shape: &PlanShape) -> Needs {
    let tokens = shape.rows * shape.length;
    let rows = |geometry: Geometry| geometry.grid[0] as usize;
    let scratch = [
        rows(kernels::rms_norm_backward(tokens, model.hidden_size)) * model.hidden_size,
        rows(kernels::qk_norm_rope_backward(tokens, model.head_dim)) * 2 * model.head_dim,
        // δ of attention's gradient.
        tokens * model.num_attention_heads,
        kernels::MAX_NORM_PARTIALS,
    ];
    let logit_rows = (LOGITS / model.vocab_size / 128 * 128).max(128).min(tokens);
    Needs { scratch: scratch.into_iter().fold(0, usize::max), logit_rows }
}

/// Where everything lies in the GPU's memory.
#[derive(Debug, Clone, Copy)]
struct Places {
    activations: Span,
    floats: Span,
    /// What the products read, in the flat order of the parameters.
    weights: Span,
    master: Span,
    moments: [Span; 2],
    inputs: Span,
    targets: Span,
    /// Tokens by id, where each id's begin, and those ids: what the embedding's gradient is summed by.
    order: Span,
    starts: Span,
    segments: Span,
    cos: Span,
    sin: Span,
    /// Σ nats.
    nats: Span,
    /// Norm, factor of clipping, and whether gradient and loss are finite.
    scalars: Span,
    bytes: usize,
}

impl Places {
    fn new(plan: &Plan, model: &ModelConfig, base: Address) -> Self {
        use Element::{Bf16, F32, F64, U32};
        let tokens = plan.shape.rows * plan.shape.length;
        let mut end = 0;
        let mut take = |element: Element, len: usize| {
            let span = Span { at: base.plus(end), element, len };
            end += span.bytes().next_multiple_of(256);
            span
        };
        let table = plan.shape.length * model.head_dim / 2;
        let moment = match plan.shape.moments {
            Moments::Float32 => F32,
            Moments::Bfloat16 => Bf16,
        };
        let mut places = Self {
            activations: take(Bf16, plan.activations),
            floats: take(F32, plan.f32_values),
            weights: take(Bf16, plan.parameters),
            master: take(F32, plan.parameters),
            moments: [take(moment, plan.parameters), take(moment, plan.parameters)],
            inputs: take(U32, tokens),
            targets: take(U32, tokens),
            order: take(U32, tokens),
            starts: take(U32, tokens + 1),
            segments: take(U32, tokens),
            cos: take(F32, table),
            sin: take(F32, table),
            nats: take(F64, 1),
            scalars: take(F32, 3),
            bytes: 0,
        };
        places.bytes = end;
        places
    }
}

/// Bytes of the GPU's memory that a run takes at once, beside the products' workspace.
pub fn arena_bytes(plan: &Plan, model: &ModelConfig) -> usize {
    Places::new(plan, model, Address(0)).bytes
}

/// What a run takes of a GPU's memory, in bytes; together [`arena_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaBytes {
    /// The master weights, and what products read.
    pub weights: u64,
    /// Gradients of all parameters.
    pub gradients: u64,
    /// Both moments.
    pub moments: u64,
    /// What a micro-batch leaves, the gradients on the way, logits, ids.
    pub activations: u64,
    /// What kernels use while they run.
    pub scratch: u64,
}

/// The parts of [`arena_bytes`].
pub fn bytes(plan: &Plan, model: &ModelConfig) -> CudaBytes {
    let places = Places::new(plan, model, Address(0));
    let sum = |spans: &[Span]| spans.iter().map(|span| span.bytes() as u64).sum::<u64>();
    let weights = sum(&[places.weights, places.master]);
    let gradients = 4 * plan.gradients.len as u64;
    let moments = sum(&places.moments);
    let scratch = 4 * plan.scratch.len as u64;
    let activations = places.bytes as u64 - weights - gradients - moments - scratch;
    CudaBytes { weights, gradients, moments, activations, scratch }
}

/// Bytes of page-locked memory of the host that copies to the GPU go through.
pub fn staging_bytes(plan: &Plan) -> u64 {
    (STAGES * 4 * CHUNK.min(plan.parameters)) as u64
}

/// A GPU, or what stands for one, as the backend of a step.
#[derive(Debug)]
pub struct Cuda<Q> {
    queue: Q,
    plan: Plan,
    at: Places,
    /// Distinct ids of the loaded micro-batch.
    ids: usize,
    /// Updates whose outcome nobody asked for yet.
    updates: usize,
}

impl<Q: Queue> Cuda<Q> {
    /// A backend on `arena`, [`arena_bytes`] of memory. Weights hold nothing sensible until they are written; moments begin
    /// at zero.
    pub fn new(mut queue: Q, model: &ModelConfig, plan: Plan, arena: Address) -> Result<Self, TrainError> {
        check(model)?;
        let at = Places::new(&plan, model, arena);
        let table = RotaryTable::new(plan.shape.length, model.head_dim, model.rope_theta);
        queue.upload(at.cos, &bytes_of(table.cos()))?;
        queue.upload(at.sin, &bytes_of(table.sin()))?;
        for span in [at.moments[0], at.moments[1], at.nats, at.scalars] {
            queue.zero(span)?;
        }
        Ok(Self { queue, plan, at, ids: 0, updates: 0 })
    }

    /// The queue.
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    fn act(&self, act: Act) -> Span {
        self.at.activations.part(act.offset, act.len)
    }

    fn float(&self, span: F32) -> Span {
        self.at.floats.part(span.offset, span.len)
    }

    fn weight(&self, weight: Weight) -> Span {
        self.at.weights.part(weight.offset, weight.len)
    }

    fn dw(&self, weight: Weight) -> Span {
        self.float(self.plan.gradient(weight))
    }

    /// So many values of the scratch.
    fn scratch(&self, len: usize) -> Span {
        self.float(self.plan.scratch.part(0, len))
    }

    fn launch(
        &mut self,
        geometry: Geometry,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Result<(), TrainError> {
        let launch = Launch { geometry, arguments: arguments.into_iter().collect() };
        Ok(self.queue.launch(&launch)?)
    }

    /// dw\[c\] += Σ over the rows of partial sums that a launch left in the scratch, of which `width` columns from `first` on count.
    fn reduce(
        &mut self,
        weight: Weight,
        write: Write,
        geometry: Geometry,
        stride: usize,
        first: usize,
    ) -> Result<(), TrainError> {
        let parts = geometry.grid[0] as usize;
        let dw = self.dw(weight);
        if write == Write::Replace {
            self.queue.zero(dw)?;
        }
        // The last row ends with the columns that count.
        let partial = self.scratch(parts * stride).part(first, (parts - 1) * stride + weight.len);
        let arguments = [ptr(dw), ptr(partial), int(parts), int(stride), int(weight.len)];
        self.launch(kernels::reduce_partials(weight.len), arguments)
    }

    fn multiply(
        &mut self,
        form: Form,
        [left, right, result]: [Span; 3],
        (w, tokens): (Matrix, usize),
        add: bool,
    ) -> Result<(), TrainError> {
        let shape = ProductShape { form, tokens, outputs: w.rows, inputs: w.columns, add };
        Ok(self.queue.product(&Product { shape, left, right, result })?)
    }

    /// Where the values of a state lie.
    fn state(&self, state: State) -> Span {
        match state {
            State::Weights => self.at.master,
            State::First => self.at.moments[0],
            State::Second => self.at.moments[1],
        }
    }
}

/// A token's number, as the kernels have it.
fn small(value: usize) -> u32 {
    u32::try_from(value).expect("a micro-batch's tokens have 32 bits")
}

fn ptr(span: Span) -> Argument {
    Argument::Span(span)
}

fn int(value: usize) -> Argument {
    Argument::I32(i32::try_from(value).expect("sizes of a micro-batch have 31 bits"))
}

fn long(value: usize) -> Argument {
    Argument::I64(i64::try_from(value).expect("sizes in memory have 63 bits"))
}

fn real(value: f64) -> Argument {
    Argument::F32(value as f32)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Tokens by id, equal ids in their order; where each id's tokens begin, and one end more; and the ids.
fn segments(ids: &[u32]) -> [Vec<u32>; 3] {
    let mut order: Vec<u32> = (0..small(ids.len())).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let (mut starts, mut distinct) = (Vec::new(), Vec::new());
    for (at, &token) in order.iter().enumerate() {
        let id = ids[token as usize];
        if distinct.last() != Some(&id) {
            distinct.push(id);
            starts.push(small(at));
        }
    }
    starts.push(small(ids.len()));
    [order, starts, distinct]
}

impl<Q: Queue> Backend for Cuda<Q> {
    fn begin(&mut self) -> Result<(), TrainError> {
        Ok(self.queue.zero(self.at.nats)?)
    }

    fn load(&mut self, inputs: &[u32], targets: &[u32]) -> Result<(), TrainError> {
        assert!(inputs.len() == targets.len() && inputs.len() <= self.at.inputs.len);
        let [order, starts, distinct] = segments(inputs);
        self.ids = distinct.len();
        for (span, values) in [
            (self.at.inputs, inputs),
            (self.at.targets, targets),
            (self.at.order, &order),
            (self.at.starts, &starts),
            (self.at.segments, &distinct),
        ] {
            self.queue.upload(span, &words(values))?;
        }
        Ok(())
    }

    fn embedding(&mut self, out: Act, w: Matrix, tokens: usize) -> Result<(), TrainError> {
        let (out, ids, weight) = (self.act(out), self.at.inputs, self.weight(w.weight));
        let arguments = [ptr(out), ptr(ids), ptr(weight), int(tokens), int(w.columns)];
        self.launch(kernels::embedding_forward(tokens, w.columns), arguments)
    }

    fn embedding_backward(
        &mut self,
        w: Matrix,
        dx: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError> {
        assert!(tokens * w.columns <= dx.len);
        let dw = self.dw(w.weight);
        if write == Write::Replace {
            self.queue.zero(dw)?;
        }
        let Places { order, starts, segments, .. } = self.at;
        let arguments = [dw, self.act(dx), order, starts, segments].map(ptr);
        let geometry = kernels::embedding_backward(self.ids, w.columns);
        self.launch(geometry, arguments.into_iter().chain([int(w.columns)]))
    }

    fn linear(&mut self, y: Act, x: Act, w: Matrix, tokens: usize) -> Result<(), TrainError> {
        let operands = [self.act(x), self.weight(w.weight), self.act(y)];
        self.multiply(Form::Forward, operands, (w, tokens), false)
    }

    fn linear_backward_input(
        &mut self,
        dx: Act,
        dy: Act,
        w: Matrix,
        tokens: usize,
    ) -> Result<(), TrainError> {
        let operands = [self.act(dy), self.weight(w.weight), self.act(dx)];
        self.multiply(Form::BackwardInput, operands, (w, tokens), false)
    }

    fn linear_backward_weight(
        &mut self,
        w: Matrix,
        dy: Act,
        x: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError> {
        let operands = [self.act(dy), self.act(x), self.dw(w.weight)];
        self.multiply(Form::BackwardWeight, operands, (w, tokens), write == Write::Add)
    }

    fn rms_norm(
        &mut self,
        y: Act,
        rstd: F32,
        x: Act,
        w: Weight,
        tokens: usize,
        eps: f64,
    ) -> Result<(), TrainError> {
        let sums = [Argument::Null, ptr(self.act(y)), ptr(self.float(rstd))];
        let inputs = [ptr(self.act(x)), Argument::Null, ptr(self.weight(w))];
        self.norm(sums, inputs, tokens, w.len, eps)
    }

    fn add_rms_norm(
        &mut self,
        sum: Act,
        y: Act,
        rstd: F32,
        x: Act,
        delta: Act,
        w: Weight,
        tokens: usize,
        eps: f64,
    ) -> Result<(), TrainError> {
        let sums = [self.act(sum), self.act(y), self.float(rstd)].map(ptr);
        let inputs = [self.act(x), self.act(delta), self.weight(w)].map(ptr);
        self.norm(sums, inputs, tokens, w.len, eps)
    }

    fn rms_norm_backward(
        &mut self,
        dx: (Act, Write),
        dw: (Weight, Write),
        dy: Act,
        x: Act,
        rstd: F32,
        tokens: usize,
    ) -> Result<(), TrainError> {
        let width = dw.0.len;
        let geometry = kernels::rms_norm_backward(tokens, width);
        let partial = self.scratch(geometry.grid[0] as usize * width);
        let spans = [self.act(dx.0), partial, self.act(dy), self.act(x), self.float(rstd), self.weight(dw.0)];
        let residual = match dx.1 {
            Write::Replace => Argument::Null,
            Write::Add => ptr(self.act(dx.0)),
        };
        self.launch(geometry, spans.map(ptr).into_iter().chain([residual, int(tokens), int(width)]))?;
        self.reduce(dw.0, dw.1, geometry, width, 0)
    }

    fn qk_norm_rope(
        &mut self,
        qk: Act,
        qkv: Act,
        norms: Option<[Weight; 2]>,
        shape: AttentionShape,
        eps: f64,
    ) -> Result<(), TrainError> {
        let first = [self.act(qk), self.act(qkv)].map(ptr);
        let arguments = first.into_iter().chain(self.heads(norms, shape, eps));
        self.launch(kernels::qk_norm_rope_forward(shape.batch * shape.length), arguments)
    }

    fn qk_norm_rope_backward(
        &mut self,
        dqkv: Act,
        qkv: Act,
        norms: Option<[Weight; 2]>,
        shape: AttentionShape,
        eps: f64,
        write: Write,
    ) -> Result<(), TrainError> {
        let stride = 2 * shape.head_dim;
        let geometry = kernels::qk_norm_rope_backward(shape.batch * shape.length, shape.head_dim);
        let partial = self.scratch(geometry.grid[0] as usize * stride);
        let first = [self.act(dqkv), partial, self.act(qkv)].map(ptr);
        self.launch(geometry, first.into_iter().chain(self.heads(norms, shape, eps)))?;
        for (at, weight) in norms.into_iter().flatten().enumerate() {
            self.reduce(weight, write, geometry, stride, at * shape.head_dim)?;
        }
        Ok(())
    }

    fn attention(
        &mut self,
        out: Act,
        log_sums: F32,
        qk: Act,
        qkv: Act,
        shape: AttentionShape,
    ) -> Result<(), TrainError> {
        let AttentionShape { batch, length, heads, head_dim, .. } = shape;
        let spans = [self.act(out), self.float(log_sums), self.act(qk), self.act(qkv)];
        let geometry = kernels::attention_forward(batch, length, heads, head_dim);
        self.launch(geometry, spans.map(ptr).into_iter().chain(sizes(shape)))
    }

    fn attention_backward(
        &mut self,
        dqkv: Act,
        dout: Act,
        out: Act,
        log_sums: F32,
        qk: Act,
        qkv: Act,
        shape: AttentionShape,
    ) -> Result<(), TrainError> {
        let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
        let tokens = batch * length;
        let delta = self.scratch(tokens * heads);
        let spans = [delta, self.act(dout), self.act(out)].map(ptr);
        let numbers = [tokens, length, heads, head_dim].map(int);
        self.launch(kernels::attention_delta(tokens, heads, head_dim), spans.into_iter().chain(numbers))?;
        let (dqkv, dout) = (self.act(dqkv), self.act(dout));
        let spans = [dqkv, self.act(qk), self.act(qkv), dout, self.float(log_sums), delta].map(ptr);
        let arguments = || spans.into_iter().chain(sizes(shape));
        self.launch(kernels::attention_backward_keys(batch, length, key_value_heads, head_dim), arguments())?;
        self.launch(kernels::attention_backward_queries(batch, length, heads, head_dim), arguments())
    }

    fn swiglu(&mut self, gated: Act, gate_up: Act, tokens: usize, width: usize) -> Result<(), TrainError> {
        let arguments = [ptr(self.act(gated)), ptr(self.act(gate_up)), int(tokens), int(width)];
        self.launch(kernels::swiglu_forward(tokens, width), arguments)
    }

    fn swiglu_backward(
        &mut self,
        dgate_up: Act,
        gated: Option<Act>,
        dgated: Act,
        gate_up: Act,
        tokens: usize,
        width: usize,
    ) -> Result<(), TrainError> {
        let again = gated.map_or(Argument::Null, |gated| ptr(self.act(gated)));
        let (dgate_up, dgated, gate_up) = (self.act(dgate_up), self.act(dgated), self.act(gate_up));
        let arguments = [ptr(dgate_up), again, ptr(dgated), ptr(gate_up), int(tokens), int(width)];
        self.launch(kernels::swiglu_backward(tokens, width), arguments)
    }

    fn cross_entropy(
        &mut self,
        logits: Act,
        first: usize,
        tokens: usize,
        vocabulary: usize,
        loss: LossOptions,
    ) -> Result<(), TrainError> {
        let losses = self.float(self.plan.losses.part(first, tokens));
        let targets = self.at.targets.part(first, tokens);
        let spans = [self.act(logits), targets, losses].map(ptr);
        let options = [loss.scale, loss.z_loss].map(real);
        let sizes = [int(vocabulary), int(vocabulary)];
        self.launch(kernels::cross_entropy(tokens), spans.into_iter().chain(options).chain(sizes))?;
        let arguments = [ptr(self.at.nats), ptr(losses), int(tokens)];
        self.launch(kernels::reduce_losses(), arguments)
    }

    fn update(&mut self, update: &Update) -> Result<(), TrainError> {
        let (n, decayed) = (self.plan.parameters, self.plan.decayed);
        let (gradients, scalars) = (self.float(self.plan.gradients), self.at.scalars);
        let geometry = kernels::sum_of_squares(n);
        let partials = self.scratch(geometry.grid[0] as usize);
        self.launch(geometry, [ptr(partials), ptr(gradients), long(n)])?;
        let limit = real(update.clip_grad_norm.unwrap_or(0.0));
        let arguments = [ptr(scalars), ptr(partials), ptr(self.at.nats), limit, int(partials.len)];
        self.launch(kernels::finish_norm(), arguments)?;

        let bf16_moments = self.plan.shape.moments == Moments::Bfloat16;
        let corrections = update.betas.map(|beta| 1.0 / (1.0 - beta.powf(update.step as f64)));
        for (first, end, decay) in [(0, decayed, update.weight_decay), (decayed, n, 0.0)] {
            if first == end {
                continue;
            }
            let len = end - first;
            let [m, v] = self.at.moments;
            let spans = [self.at.master, self.at.weights, m, v, gradients].map(|span| span.part(first, len));
            let numbers = [
                update.lr,
                1.0 - update.lr * decay,
                update.betas[0],
                update.betas[1],
                corrections[0],
                corrections[1],
                update.eps,
            ];
            let rounding = [
                // The weights that products read are the master weights to nearest: a run that goes on from a checkpoint,
                // which has the master weights alone, makes the same ones.
                Argument::I32(0),
                Argument::U64(update.seed),
                Argument::U64(update.step),
                long(first),
                long(len),
            ];
            let arguments =
                spans.map(ptr).into_iter().chain([ptr(scalars)]).chain(numbers.map(real)).chain(rounding);
            self.launch(kernels::adamw(len, bf16_moments), arguments)?;
        }
        // Answered while the next step's gradients are under way.
        self.queue.ask(self.at.nats)?;
        self.queue.ask(scalars)?;
        self.updates += 1;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Outcome, TrainError> {
        let (mut nats, mut scalars) = ([0; 8], [0; 12]);
        if self.updates == 0 {
            self.queue.download(self.at.nats, &mut nats)?;
            return Ok(Outcome { nats: f64::from_le_bytes(nats), grad_norm: 0.0, skipped: false });
        }
        self.updates -= 1;
        self.queue.answer(&mut nats)?;
        self.queue.answer(&mut scalars)?;
        let nats = f64::from_le_bytes(nats);
        let [norm, _, finite] = [0, 4, 8].map(|at| float_at(&scalars, at));
        Ok(Outcome { nats, grad_norm: f64::from(norm), skipped: finite == 0.0 })
    }

    fn goes_on(&self) -> bool {
        true
    }

    fn read(&self, state: State, first: usize, into: &mut [f32]) -> Result<(), TrainError> {
        self.copy(self.state(state).part(first, into.len()), into)
    }

    fn write(&mut self, state: State, first: usize, values: &[f32]) -> Result<(), TrainError> {
        let span = self.state(state).part(first, values.len());
        for (part, values) in values.chunks(CHUNK).enumerate() {
            let (at, len) = (part * CHUNK, values.len());
            let bytes: Vec<u8> = match span.element {
                // Moments in bf16 come from bf16: what is cut off is zero.
                Element::Bf16 => {
                    values.iter().flat_map(|value| value.to_le_bytes().into_iter().skip(2)).collect()
                }
                _ => bytes_of(values),
            };
            self.queue.upload(span.part(at, len), &bytes)?;
            if state == State::Weights {
                assert!((first + at).is_multiple_of(8) && len.is_multiple_of(8), "whole packs of eight");
                let arguments =
                    [ptr(self.at.weights.part(first + at, len)), ptr(span.part(at, len)), long(len)];
                self.launch(kernels::round_to_bf16(len), arguments)?;
            }
        }
        Ok(())
    }

    fn values(&self, act: Act, into: &mut [f32]) -> Result<(), TrainError> {
        self.copy(self.act(act), into)
    }

    fn gradient(&self, weight: Weight, into: &mut [f32]) -> Result<(), TrainError> {
        self.copy(self.dw(weight), into)
    }
}

fn float_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl<Q: Queue> Cuda<Q> {
    /// The first values of a span, some at a time.
    fn copy(&self, span: Span, into: &mut [f32]) -> Result<(), TrainError> {
        let size = span.element.size();
        let mut bytes = vec![0; into.len().min(CHUNK) * size];
        for (part, values) in into.chunks_mut(CHUNK).enumerate() {
            let bytes = &mut bytes[..values.len() * size];
            self.queue.download(span.part(part * CHUNK, values.len()), bytes)?;
            for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(size)) {
                *value = match *bytes {
                    [a, b] => f32::from_le_bytes([0, 0, a, b]),
                    _ => float_at(bytes, 0),
                };
            }
        }
        Ok(())
    }

    fn norm(
        &mut self,
        sums: [Argument; 3],
        inputs: [Argument; 3],
        rows: usize,
        width: usize,
        eps: f64,
    ) -> Result<(), TrainError> {
        let rest = [int(rows), int(width), real(eps)];
        self.launch(kernels::add_rms_norm_forward(rows, width), sums.into_iter().chain(inputs).chain(rest))
    }

    /// The arguments that both directions of QK-norm and RoPE end with.
    fn heads(&self, norms: Option<[Weight; 2]>, shape: AttentionShape, eps: f64) -> Vec<Argument> {
        let [wq, wk] = match norms {
            Some(norms) => norms.map(|weight| ptr(self.weight(weight))),
            None => [Argument::Null; 2],
        };
        let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
        let sizes = [batch * length, length, heads, key_value_heads, head_dim].map(int);
        [wq, wk, ptr(self.at.cos), ptr(self.at.sin)].into_iter().chain(sizes).chain([real(eps)]).collect()
    }
}

/// The arguments that the kernels of attention end with.
fn sizes(shape: AttentionShape) -> [Argument; 4] {
    let scale = 1.0 / (shape.head_dim as f64).sqrt();
    [int(shape.length), int(shape.heads), int(shape.key_value_heads), real(scale)]
}

/// The plan of a micro-batch on a GPU.
///
/// # Errors
/// `CONFIG_INVALID` for a model that the kernels are not made for.
pub fn plan(model: &ModelConfig, shape: PlanShape) -> Result<Plan, TrainError> {
    check(model)?;
    Ok(Plan::new(model, shape, needs(model, &shape)))
}

/// The backend on a GPU: opens it and takes all of its memory at once.
///
/// # Errors
/// `CUDA_UNAVAILABLE` and `CUDA_DRIVER_TOO_OLD` with what is missing, `OUT_OF_MEMORY_DEVICE` with what was wanted and what
/// is free.
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub fn on_gpu(ordinal: usize, model: &ModelConfig, plan: Plan) -> Result<Box<dyn Backend>, TrainError> {
    let gpu = candlewick_cuda::Gpu::new(&candlewick_cuda::open(ordinal)?, arena_bytes(&plan, model))?;
    let base = gpu.base();
    Ok(Box::new(Cuda::new(gpu, model, plan, base)?))
}

/// As [`on_gpu`], on GPU 0, with the time of each piece of work added to `times`; slower, since it waits after each.
///
/// # Errors
/// As [`on_gpu`].
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub fn on_timed_gpu(
    model: &ModelConfig,
    plan: Plan,
    times: candlewick_cuda::Times,
) -> Result<Box<dyn Backend>, TrainError> {
    let gpu = candlewick_cuda::Gpu::new(&candlewick_cuda::open(0)?, arena_bytes(&plan, model))?;
    let base = gpu.base();
    Ok(Box::new(Cuda::new(candlewick_cuda::Timed::new(gpu, times), model, plan, base)?))
}

/// candle's device, for generation.
///
/// # Errors
/// `CUDA_UNAVAILABLE` and `CUDA_DRIVER_TOO_OLD` with what is missing.
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub fn candle_device(device: Device) -> Result<candle_core::Device, TrainError> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(ordinal) => Ok(candle_core::Device::Cuda(candlewick_cuda::open(ordinal)?)),
    }
}

/// There is no GPU for this build.
///
/// # Errors
/// `CUDA_UNAVAILABLE`.
#[cfg(not(all(feature = "cuda", target_os = "linux")))]
pub fn on_gpu(_ordinal: usize, _model: &ModelConfig, _plan: Plan) -> Result<Box<dyn Backend>, TrainError> {
    Err(not_built())
}

/// candle's device, for generation: this build has the CPU alone.
///
/// # Errors
/// `CUDA_UNAVAILABLE` for another.
#[cfg(not(all(feature = "cuda", target_os = "linux")))]
pub fn candle_device(device: Device) -> Result<candle_core::Device, TrainError> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(_) => Err(not_built()),
    }
}

#[cfg(not(all(feature = "cuda", target_os = "linux")))]
fn not_built() -> TrainError {
    TrainError::new(
        "CUDA_UNAVAILABLE",
        "this build of candlewick has no CUDA",
        "in a checkout: npm run build:cuda; or use the device cpu",
    )
}

#[cfg(test)]
mod emulated;
