//! The processor, in f32, on the threads of the current rayon pool.
//!
//! One allocation holds activations and f32 values; spans become slices by `get_disjoint_mut`, which proves that what a
//! kernel writes is nothing that it reads. Weights are the model's own parameters, and their own master copy.

use super::{Backend, LossOptions, Outcome, State, Update, Write};
use crate::{
    Moments, TrainError,
    plan::{Act, F32, Matrix, Needs, Plan, PlanShape, Weight, attention_shape},
};
use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use candlewick_model::{
    ModelConfig, Parameters, Transformer,
    kernels::{
        self, AdamWUpdate, AttentionShape, CrossEntropyGradient, MatrixMut, Moment, RotaryTable, RoundingKey,
    },
    memory,
};
use half::bf16;
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

/// Tokens whose logits exist at a time: the more, the less often the output matrix is packed and its gradient added to.
const LOGIT_ROWS: [usize; 2] = [256, 1024];

/// Logits at a time, 32 MiB, within those bounds: many more would leave the last cache between the products that make and
/// read them.
const LOGITS: usize = 1 << 23;

/// The CPU's memory and kernels.
pub struct Cpu {
    parameters: Parameters,
    rotary: Arc<RotaryTable>,
    arena: Arena,
    moments: MomentBuffers,
    /// Where gradients, kernels' scratch memory and losses lie, and how many values decay.
    gradients: F32,
    scratch: F32,
    losses: F32,
    decayed: usize,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    partials: Vec<f64>,
    outcome: Outcome,
}

#[derive(Debug)]
enum MomentBuffers {
    F32([Vec<f32>; 2]),
    Bf16([Vec<bf16>; 2]),
}

/// Activations, then f32 values.
struct Arena {
    values: Vec<f32>,
    /// Where the f32 values begin.
    floats: usize,
}

/// A part of the arena.
trait Span {
    fn range(self, floats: usize, len: usize) -> Range<usize>;
}

impl Span for Act {
    fn range(self, _: usize, len: usize) -> Range<usize> {
        assert!(len <= self.len, "{len} values of {self:?}");
        self.offset..self.offset + len
    }
}

impl Span for F32 {
    fn range(self, floats: usize, len: usize) -> Range<usize> {
        assert!(len <= self.len, "{len} values of {self:?}");
        floats + self.offset..floats + self.offset + len
    }
}

impl Arena {
    /// The first `len` values of a span.
    fn range(&self, span: impl Span, len: usize) -> Range<usize> {
        span.range(self.floats, len)
    }

    /// Slices for ranges that do not meet.
    fn slices<const N: usize>(&mut self, ranges: [Range<usize>; N]) -> [&mut [f32]; N] {
        self.values.get_disjoint_mut(ranges).expect("what a kernel uses lies apart, by the plan")
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("values", &self.arena.values.len()).finish_non_exhaustive()
    }
}

impl Cpu {
    /// What the CPU's kernels need of a plan.
    pub fn needs(model: &ModelConfig, rows: usize, length: usize, threads: usize) -> Needs {
        let shape = attention_shape(model, rows, length);
        let (tokens, [least, most]) = (rows * length, LOGIT_ROWS);
        let scratch = [
            kernels::attention_scratch_len(shape, threads),
            kernels::rms_norm_backward_len(tokens, model.hidden_size),
            kernels::qk_norm_rope_backward_len(shape),
        ];
        Needs {
            scratch: scratch.into_iter().max().unwrap_or(0),
            logit_rows: (LOGITS / model.vocab_size).clamp(least, most),
        }
    }

    /// Bytes that the backend allocates for a plan, besides the weights: what [`Cpu::new`] takes, to the byte.
    pub fn bytes(plan: &Plan) -> CpuBytes {
        let moment = match plan.shape.moments {
            Moments::Float32 => 4,
            Moments::Bfloat16 => 2,
        };
        let tokens = plan.shape.rows * plan.shape.length;
        let floats = plan.f32_values - plan.gradients.len;
        CpuBytes {
            gradients: 4 * plan.gradients.len as u64,
            moments: 2 * moment * plan.parameters as u64,
            activations: 4 * plan.activations as u64
                + 4 * (floats - plan.scratch.len) as u64
                + 8 * tokens as u64,
            scratch: 4 * plan.scratch.len as u64 + 8 * kernels::sum_of_squares_len(plan.parameters) as u64,
        }
    }

    /// Everything that a step needs, allocated and written once, so that a machine without the memory says so here.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY_HOST`.
    pub fn new(transformer: &Transformer, plan: &Plan) -> Result<Self, TrainError> {
        let zeros = |len: usize| zeroed(len, 0.0f32);
        let n = plan.parameters;
        let tokens = plan.shape.rows * plan.shape.length;
        Ok(Self {
            parameters: transformer.parameters().clone(),
            rotary: transformer.rotary().clone(),
            arena: Arena { values: zeros(plan.activations + plan.f32_values)?, floats: plan.activations },
            moments: match plan.shape.moments {
                Moments::Float32 => MomentBuffers::F32([zeros(n)?, zeros(n)?]),
                Moments::Bfloat16 => MomentBuffers::Bf16([zeroed(n, bf16::ZERO)?, zeroed(n, bf16::ZERO)?]),
            },
            gradients: plan.gradients,
            scratch: plan.scratch,
            losses: plan.losses,
            decayed: plan.decayed,
            inputs: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            partials: zeroed(kernels::sum_of_squares_len(n), 0.0)?,
            outcome: Outcome { nats: 0.0, grad_norm: 0.0, skipped: false },
        })
    }

    fn gradient_range(&self, weight: Weight) -> Range<usize> {
        self.arena.range(self.gradients.part(weight.offset, weight.len), weight.len)
    }
}

/// What [`Cpu::new`] allocates, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBytes {
    /// Gradients of all parameters.
    pub gradients: u64,
    /// Both moments.
    pub moments: u64,
    /// What a micro-batch leaves, the gradients on the way, logits, ids.
    pub activations: u64,
    /// What kernels use while they run.
    pub scratch: u64,
}

fn zeroed<T: Copy>(len: usize, zero: T) -> Result<Vec<T>, TrainError> {
    memory::zeroed(len, zero).map_err(|_| {
        TrainError::new(
            "OUT_OF_MEMORY_HOST",
            format!("no memory for {} bytes of a step's buffers", len * size_of::<T>()),
            "set training.micro_batch_size to less or to auto, or training.recompute to norms_and_swiglu",
        )
    })
}

/// The values of a weight.
fn of(flat: &[f32], weight: Weight) -> &[f32] {
    &flat[weight.offset..weight.offset + weight.len]
}

fn matrix(flat: &[f32], w: Matrix) -> kernels::Matrix<'_> {
    kernels::Matrix::new(of(flat, w.weight), w.rows, w.columns)
}

impl Backend for Cpu {
    fn begin(&mut self) -> Result<(), TrainError> {
        self.outcome = Outcome { nats: 0.0, grad_norm: 0.0, skipped: false };
        Ok(())
    }

    fn load(&mut self, inputs: &[u32], targets: &[u32]) -> Result<(), TrainError> {
        for (own, given) in [(&mut self.inputs, inputs), (&mut self.targets, targets)] {
            own.clear();
            own.extend_from_slice(given);
        }
        Ok(())
    }

    fn embedding(&mut self, out: Act, w: Matrix, tokens: usize) -> Result<(), TrainError> {
        let values = self.parameters.values();
        let [out] = self.arena.slices([self.arena.range(out, tokens * w.columns)]);
        kernels::embedding_forward(out, of(values.get()?, w.weight), &self.inputs[..tokens], w.columns);
        Ok(())
    }

    fn embedding_backward(
        &mut self,
        w: Matrix,
        dx: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError> {
        let ranges = [self.gradient_range(w.weight), self.arena.range(dx, tokens * w.columns)];
        let [grad, dx] = self.arena.slices(ranges);
        if write == Write::Replace {
            grad.fill(0.0);
        }
        kernels::embedding_backward(grad, dx, &self.inputs[..tokens], w.columns);
        Ok(())
    }

    fn linear(&mut self, y: Act, x: Act, w: Matrix, tokens: usize) -> Result<(), TrainError> {
        let values = self.parameters.values();
        let ranges = [self.arena.range(y, tokens * w.rows), self.arena.range(x, tokens * w.columns)];
        let [y, x] = self.arena.slices(ranges);
        let x_ti = kernels::Matrix::new(x, tokens, w.columns);
        let y_to = MatrixMut::new(y, tokens, w.rows);
        kernels::multiply(y_to, x_ti, matrix(values.get()?, w).transposed(), 1.0, false, true);
        Ok(())
    }

    fn linear_backward_input(
        &mut self,
        dx: Act,
        dy: Act,
        w: Matrix,
        tokens: usize,
    ) -> Result<(), TrainError> {
        let values = self.parameters.values();
        let ranges = [self.arena.range(dx, tokens * w.columns), self.arena.range(dy, tokens * w.rows)];
        let [dx, dy] = self.arena.slices(ranges);
        let dy_to = kernels::Matrix::new(dy, tokens, w.rows);
        let dx_ti = MatrixMut::new(dx, tokens, w.columns);
        kernels::multiply(dx_ti, dy_to, matrix(values.get()?, w), 1.0, false, true);
        Ok(())
    }

    fn linear_backward_weight(
        &mut self,
        w: Matrix,
        dy: Act,
        x: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError> {
        let ranges = [
            self.gradient_range(w.weight),
            self.arena.range(dy, tokens * w.rows),
            self.arena.range(x, tokens * w.columns),
        ];
        let [grad, dy, x] = self.arena.slices(ranges);
        let dy_ot = kernels::Matrix::new(dy, tokens, w.rows).transposed();
        let x_ti = kernels::Matrix::new(x, tokens, w.columns);
        let dw_oi = MatrixMut::new(grad, w.rows, w.columns);
        kernels::multiply(dw_oi, dy_ot, x_ti, 1.0, write == Write::Add, true);
        Ok(())
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
        let (values, n) = (self.parameters.values(), tokens * w.len);
        let ranges = [self.arena.range(y, n), self.arena.range(rstd, tokens), self.arena.range(x, n)];
        let [y, rstd, x] = self.arena.slices(ranges);
        kernels::rms_norm_forward(y, rstd, x, of(values.get()?, w), eps as f32);
        Ok(())
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
        let (values, n) = (self.parameters.values(), tokens * w.len);
        let ranges = [
            self.arena.range(sum, n),
            self.arena.range(y, n),
            self.arena.range(rstd, tokens),
            self.arena.range(x, n),
            self.arena.range(delta, n),
        ];
        let [sum, y, rstd, x, delta] = self.arena.slices(ranges);
        kernels::add_rms_norm_forward(sum, y, rstd, (x, delta), of(values.get()?, w), eps as f32);
        Ok(())
    }

    fn rms_norm_backward(
        &mut self,
        (dx, into): (Act, Write),
        (w, write): (Weight, Write),
        dy: Act,
        x: Act,
        rstd: F32,
        tokens: usize,
    ) -> Result<(), TrainError> {
        let (values, n) = (self.parameters.values(), tokens * w.len);
        let ranges = [
            self.arena.range(dx, n),
            self.gradient_range(w),
            self.arena.range(dy, n),
            self.arena.range(x, n),
            self.arena.range(rstd, tokens),
            self.arena.range(self.scratch, self.scratch.len),
        ];
        let [dx, grad, dy, x, rstd, scratch] = self.arena.slices(ranges);
        let (dx, grad) = ((dx, into == Write::Add), (grad, write == Write::Add));
        kernels::rms_norm_backward(dx, grad, dy, (x, rstd), of(values.get()?, w), scratch);
        Ok(())
    }

    fn qk_norm_rope(
        &mut self,
        qk: Act,
        qkv: Act,
        norms: Option<[Weight; 2]>,
        shape: AttentionShape,
        eps: f64,
    ) -> Result<(), TrainError> {
        let (values, tokens) = (self.parameters.values(), shape.batch * shape.length);
        let ranges = [
            self.arena.range(qk, tokens * shape.qk_width()),
            self.arena.range(qkv, tokens * shape.qkv_width()),
        ];
        let [qk, qkv] = self.arena.slices(ranges);
        let flat = values.get()?;
        let norms = norms.map(|[q, k]| (of(flat, q), of(flat, k)));
        kernels::qk_norm_rope_forward(qk, qkv, norms, &self.rotary, shape, eps as f32);
        Ok(())
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
        let (values, n) = (self.parameters.values(), shape.batch * shape.length * shape.qkv_width());
        let (dqkv, qkv) = (self.arena.range(dqkv, n), self.arena.range(qkv, n));
        let scratch = self.arena.range(self.scratch, self.scratch.len);
        let (add, flat, eps) = (write == Write::Add, values.get()?, eps as f32);
        match norms {
            Some([q, k]) => {
                let grads = [self.gradient_range(q), self.gradient_range(k)];
                let [q_grad, k_grad] = grads;
                let [dqkv, qkv, scratch, q_grad, k_grad] =
                    self.arena.slices([dqkv, qkv, scratch, q_grad, k_grad]);
                let (grads, norms) = (Some((q_grad, k_grad)), Some((of(flat, q), of(flat, k))));
                let (rotary, shape) = (&self.rotary, (shape, scratch));
                kernels::qk_norm_rope_backward(dqkv, grads, add, qkv, norms, rotary, shape, eps);
            }
            None => {
                let [dqkv, qkv, scratch] = self.arena.slices([dqkv, qkv, scratch]);
                let (rotary, shape) = (&self.rotary, (shape, scratch));
                kernels::qk_norm_rope_backward(dqkv, None, add, qkv, None, rotary, shape, eps);
            }
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
        let tokens = shape.batch * shape.length;
        let ranges = [
            self.arena.range(out, tokens * shape.heads * shape.head_dim),
            self.arena.range(log_sums, tokens * shape.heads),
            self.arena.range(qk, tokens * shape.qk_width()),
            self.arena.range(qkv, tokens * shape.qkv_width()),
            self.arena.range(self.scratch, self.scratch.len),
        ];
        let [out, log_sums, qk, qkv, scratch] = self.arena.slices(ranges);
        kernels::attention_forward(out, log_sums, (qk, qkv), shape, scratch);
        Ok(())
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
        let tokens = shape.batch * shape.length;
        let width = shape.heads * shape.head_dim;
        let ranges = [
            self.arena.range(dqkv, tokens * shape.qkv_width()),
            self.arena.range(dout, tokens * width),
            self.arena.range(out, tokens * width),
            self.arena.range(log_sums, tokens * shape.heads),
            self.arena.range(qk, tokens * shape.qk_width()),
            self.arena.range(qkv, tokens * shape.qkv_width()),
            self.arena.range(self.scratch, self.scratch.len),
        ];
        let [dqkv, dout, out, log_sums, qk, qkv, scratch] = self.arena.slices(ranges);
        kernels::attention_backward(dqkv, dout, out, log_sums, (qk, qkv), shape, scratch);
        Ok(())
    }

    fn swiglu(&mut self, gated: Act, gate_up: Act, tokens: usize, width: usize) -> Result<(), TrainError> {
        let n = tokens * width;
        let ranges = [self.arena.range(gated, n), self.arena.range(gate_up, 2 * n)];
        let [gated, gate_up] = self.arena.slices(ranges);
        kernels::swiglu_forward(gated, gate_up, width);
        Ok(())
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
        let n = tokens * width;
        let (dgate_up, dgated, gate_up) = (
            self.arena.range(dgate_up, 2 * n),
            self.arena.range(dgated, n),
            self.arena.range(gate_up, 2 * n),
        );
        match gated {
            Some(gated) => {
                let gated = self.arena.range(gated, n);
                let [dgate_up, dgated, gate_up, gated] =
                    self.arena.slices([dgate_up, dgated, gate_up, gated]);
                kernels::swiglu_backward(dgate_up, Some(gated), dgated, gate_up, width);
            }
            None => {
                let [dgate_up, dgated, gate_up] = self.arena.slices([dgate_up, dgated, gate_up]);
                kernels::swiglu_backward(dgate_up, None, dgated, gate_up, width);
            }
        }
        Ok(())
    }

    fn cross_entropy(
        &mut self,
        logits: Act,
        first: usize,
        tokens: usize,
        vocabulary: usize,
        loss: LossOptions,
    ) -> Result<(), TrainError> {
        let targets = &self.targets[first..first + tokens];
        let ranges = [self.arena.range(logits, tokens * vocabulary), self.arena.range(self.losses, tokens)];
        let [logits, losses] = self.arena.slices(ranges);
        let gradient = CrossEntropyGradient { scale: loss.scale as f32, z_loss: loss.z_loss as f32 };
        kernels::cross_entropy(losses, logits, targets, vocabulary, loss.gradient.then_some(gradient));
        self.outcome.nats += losses.iter().map(|&nats| f64::from(nats)).sum::<f64>();
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<(), TrainError> {
        let range = self.arena.range(self.gradients, self.gradients.len);
        let gradient = &self.arena.values[range];
        let norm = kernels::sum_of_squares(gradient, &mut self.partials).sqrt();
        self.outcome.grad_norm = norm;
        self.outcome.skipped = !(norm.is_finite() && (self.outcome.nats * update.scale).is_finite());
        if self.outcome.skipped {
            return Ok(());
        }
        let moments = Mutex::new(&mut self.moments);
        let step = InPlace { update, norm, gradient, moments, decayed: self.decayed };
        self.parameters.flat().inplace_op1(&step)?;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Outcome, TrainError> {
        Ok(self.outcome)
    }

    fn read(&self, state: State, first: usize, into: &mut [f32]) -> Result<(), TrainError> {
        let range = first..first + into.len();
        let at = match state {
            State::Weights => {
                into.copy_from_slice(&self.parameters.values().get()?[range]);
                return Ok(());
            }
            State::First => 0,
            State::Second => 1,
        };
        match &self.moments {
            MomentBuffers::F32(moments) => into.copy_from_slice(&moments[at][range]),
            MomentBuffers::Bf16(moments) => {
                into.iter_mut().zip(&moments[at][range]).for_each(|(into, value)| *into = value.to_f32());
            }
        }
        Ok(())
    }

    fn values(&self, act: Act, into: &mut [f32]) -> Result<(), TrainError> {
        into.copy_from_slice(&self.arena.values[self.arena.range(act, into.len())]);
        Ok(())
    }

    fn write(&mut self, state: State, first: usize, values: &[f32]) -> Result<(), TrainError> {
        let range = first..first + values.len();
        let at = match state {
            State::Weights => {
                let values = Mutex::new(values);
                self.parameters.flat().inplace_op1(&Overwrite { first, values })?;
                return Ok(());
            }
            State::First => 0,
            State::Second => 1,
        };
        match &mut self.moments {
            MomentBuffers::F32(moments) => moments[at][range].copy_from_slice(values),
            MomentBuffers::Bf16(moments) => {
                let own = &mut moments[at][range];
                own.iter_mut().zip(values).for_each(|(own, &value)| *own = bf16::from_f32(value));
            }
        }
        Ok(())
    }

    fn gradient(&self, weight: Weight, into: &mut [f32]) -> Result<(), TrainError> {
        into.copy_from_slice(&self.arena.values[self.gradient_range(weight)]);
        Ok(())
    }
}

/// The values of a flat, contiguous f32 storage, to write.
fn writable<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("weights are expected in f32") };
    let Some((first, end)) = layout.contiguous_offsets() else { bail!("weights are expected without gaps") };
    Ok(&mut values[first..end])
}

/// New values of some weights.
struct Overwrite<'a> {
    first: usize,
    values: Mutex<&'a [f32]>,
}

impl InplaceOp1 for Overwrite<'_> {
    fn name(&self) -> &'static str {
        "candlewick-overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Ok(values) = self.values.lock() else { bail!("the values are poisoned") };
        writable(storage, layout)?[self.first..self.first + values.len()].copy_from_slice(&values);
        Ok(())
    }
}

/// The update of all weights as an operation on their storage.
struct InPlace<'a> {
    update: &'a Update,
    norm: f64,
    gradient: &'a [f32],
    decayed: usize,
    /// candle hands out the weights mutably but the operation only by reference.
    moments: Mutex<&'a mut MomentBuffers>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "candlewick-adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Ok(mut moments) = self.moments.lock() else { bail!("the moments are poisoned") };
        let Update { step, lr, betas, eps, weight_decay, clip_grad_norm, seed, .. } = *self.update;
        let clip = clip_grad_norm.map_or(1.0, |limit| (limit / (self.norm + 1e-6)).min(1.0));
        let correction = |beta: f64| (1.0 / (1.0 - beta.powi(step.min(i32::MAX as u64) as i32))) as f32;
        let constants = |decay: f64| AdamWUpdate {
            lr: lr as f32,
            keep: (1.0 - lr * decay) as f32,
            betas: betas.map(|beta| beta as f32),
            eps: eps as f32,
            corrections: betas.map(correction),
            clip: clip as f32,
            rounding: RoundingKey::new(seed, step),
        };
        let weights = writable(storage, layout)?;
        let n = weights.len();
        for (range, decay) in [(0..self.decayed, weight_decay), (self.decayed..n, 0.0)] {
            let moments = match &mut **moments {
                MomentBuffers::F32([m, v]) => {
                    (Moment::F32(&mut m[range.clone()]), Moment::F32(&mut v[range.clone()]))
                }
                MomentBuffers::Bf16([m, v]) => {
                    (Moment::Bf16(&mut m[range.clone()]), Moment::Bf16(&mut v[range.clone()]))
                }
            };
            let (first, gradient) = (range.start, &self.gradient[range.clone()]);
            kernels::adamw(&mut weights[range], gradient, moments, &constants(decay), first);
        }
        Ok(())
    }
}

/// The needs and the plan of a micro-batch on the CPU.
pub fn cpu_plan(model: &ModelConfig, shape: PlanShape, threads: usize) -> Plan {
    Plan::new(model, shape, Cpu::needs(model, shape.rows, shape.length, threads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recompute;
    use candle_core::Device;
    use candlewick_model::Architecture;

    #[test]
    fn what_is_allocated_is_what_was_foretold_to_the_byte() {
        let model = ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            vocab_size: 50,
            max_position_embeddings: 32,
            bos_token_id: None,
            eos_token_id: None,
        };
        let transformer = Transformer::new(model.clone(), 1, &Device::Cpu).unwrap();
        for moments in [Moments::Float32, Moments::Bfloat16] {
            for recompute in [Recompute::None, Recompute::NormsAndSwiglu] {
                let plan = cpu_plan(&model, PlanShape { rows: 3, length: 20, recompute, moments }, 2);
                let cpu = Cpu::new(&transformer, &plan).unwrap();
                let moments = match &cpu.moments {
                    MomentBuffers::F32(both) => both.iter().map(|m| 4 * m.capacity()).sum::<usize>(),
                    MomentBuffers::Bf16(both) => both.iter().map(|m| 2 * m.capacity()).sum(),
                };
                let ids = cpu.inputs.capacity() + cpu.targets.capacity();
                let bytes = 4 * cpu.arena.values.capacity() + moments + 4 * ids + 8 * cpu.partials.capacity();
                let CpuBytes { gradients, moments, activations, scratch } = Cpu::bytes(&plan);
                assert_eq!(bytes as u64, gradients + moments + activations + scratch);
            }
        }
    }
}
