//! The kernels that a step is made of, on one device.
//!
//! The step itself (`crate::step`) is written once over this trait. Everything it touches lies where the [`Plan`] says:
//! a backend allocates once, before the first step, and a kernel names what it reads and writes by spans. Kernels are
//! called in an order in which each may run to its end before the next, so a device runs them on one stream; none of
//! them waits for the host, and the host waits once a step, in [`Backend::outcome`], which may be asked for while the next
//! step is under way.
//!
//! Results may not depend on anything but the arguments: no atomics, partial sums in a fixed order.

mod cpu;
pub mod cuda;

pub use cpu::{Cpu, CpuBytes, cpu_plan};

use crate::{
    TrainError,
    plan::{Act, F32, Matrix, Weight},
};
use candlewick_model::kernels::AttentionShape;
use std::fmt::Debug;

/// What a kernel's result does to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Takes its place (β = 0); what was there, not a number even, has no influence.
    Replace,
    /// Is added to it (β = 1).
    Add,
}

/// How the loss of a chunk of logits is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Factor on the gradient: one over the counted targets of the global batch.
    pub scale: f64,
    /// Weight of (ln Σ exp z)² a counted token, in the gradient only: the loss that is told stays the cross-entropy.
    pub z_loss: f64,
    /// Whether logits become their gradients; evaluation needs none and leaves them undefined.
    pub gradient: bool,
}

/// The constants of one update by AdamW (Loshchilov, Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Its number, from 1: bias correction, and the counter of stochastic rounding.
    pub step: u64,
    /// Factor on the summed nats: one over the counted targets. The loss that has to be finite is the product.
    pub scale: f64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of the first [`crate::plan::Plan::decayed`] values.
    pub weight_decay: f64,
    /// Largest norm of the gradient: g ← g · min(1, clip / (‖g‖ + 1e-6)).
    pub clip_grad_norm: Option<f64>,
    /// Decides the stochastic rounding.
    pub seed: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Σ nats since [`Backend::begin`], unscaled.
    pub nats: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Whether the update was left out, because nats or norm are not finite: weights and moments are as they were.
    pub skipped: bool,
}

/// What a checkpoint holds of a backend, each in the flat order of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The weights at full precision: the master copy where there is one.
    Weights,
    /// AdamW's first moment.
    First,
    /// AdamW's second moment.
    Second,
}

/// A device's kernels and memory. `tokens` is that of the micro-batch at hand: buffers may be larger, and only their
/// first `tokens · width` values count.
///
/// In the formulas, dx is the gradient of the loss by x; C is the hidden size, Q and K the widths of all query heads and
/// of all key heads, D that of one, I the intermediate size, V the vocabulary.
///
/// # Errors
/// Every method fails only for what the device says (`OUT_OF_MEMORY_DEVICE`, `CUDA_UNAVAILABLE`, …); sizes that do not
/// agree are a bug and panic.
pub trait Backend: Debug + Send {
    /// Begins a sum of losses at zero: before a step's first micro-batch, and before an evaluation.
    fn begin(&mut self) -> Result<(), TrainError>;

    /// Brings a micro-batch's ids and targets to the device. Ids are below V; a target is below V or `0xFFFFFFFF`,
    /// which counts for nothing. What later kernels need of them (an order of tokens by id) is made here.
    fn load(&mut self, inputs: &[u32], targets: &[u32]) -> Result<(), TrainError>;

    /// out\[t\] = W\[id(t)\], `[tokens, C]`.
    fn embedding(&mut self, out: Act, w: Matrix, tokens: usize) -> Result<(), TrainError>;

    /// dW\[v\] = Σ dx\[t\] over the tokens t with id v, in the order of t.
    fn embedding_backward(
        &mut self,
        w: Matrix,
        dx: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError>;

    /// y = x·Wᵀ: `x` `[tokens, in]`, `y` `[tokens, out]`.
    fn linear(&mut self, y: Act, x: Act, w: Matrix, tokens: usize) -> Result<(), TrainError>;

    /// dx = dy·W.
    fn linear_backward_input(&mut self, dx: Act, dy: Act, w: Matrix, tokens: usize)
    -> Result<(), TrainError>;

    /// dW = dyᵀ·x, into the gradient of `w`.
    fn linear_backward_weight(
        &mut self,
        w: Matrix,
        dy: Act,
        x: Act,
        tokens: usize,
        write: Write,
    ) -> Result<(), TrainError>;

    /// y = x·r·w with r = 1/√(mean(x²) + ε) a token, kept in `rstd`. Also what makes `y` again on the way back.
    fn rms_norm(
        &mut self,
        y: Act,
        rstd: F32,
        x: Act,
        w: Weight,
        tokens: usize,
        eps: f64,
    ) -> Result<(), TrainError>;

    /// sum = x + delta, and y and `rstd` are the norm of the sum.
    #[expect(clippy::too_many_arguments, reason = "two results, two inputs and a weight")]
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
    ) -> Result<(), TrainError>;

    /// With s = r²/C · Σ dy·w·x a token: dx = r·(dy·w − x·s), dw = Σ over tokens of dy·x·r.
    ///
    /// With [`Write::Add`], dx is added to what is there: the gradient that comes along the residual stream. `dw` names the
    /// weight whose gradient it is.
    fn rms_norm_backward(
        &mut self,
        dx: (Act, Write),
        dw: (Weight, Write),
        dy: Act,
        x: Act,
        rstd: F32,
        tokens: usize,
    ) -> Result<(), TrainError>;

    /// `qk` `[tokens, Q + K]` from the first Q + K columns of `qkv` `[tokens, Q + 2K]`: each head normed by `norms` (of
    /// queries, of keys), if there are any, then turned by its position in the rotate-half convention.
    fn qk_norm_rope(
        &mut self,
        qk: Act,
        qkv: Act,
        norms: Option<[Weight; 2]>,
        shape: AttentionShape,
        eps: f64,
    ) -> Result<(), TrainError>;

    /// The first Q + K columns of `dqkv` hold the gradient of `qk` and become that of `qkv`'s.
    fn qk_norm_rope_backward(
        &mut self,
        dqkv: Act,
        qkv: Act,
        norms: Option<[Weight; 2]>,
        shape: AttentionShape,
        eps: f64,
        write: Write,
    ) -> Result<(), TrainError>;

    /// out = softmax(q·kᵀ/√D + causal mask)·v, `[tokens, Q]`; q and k from `qk`, v from the last K columns of `qkv`.
    /// `log_sums` `[B, H, T]` keeps ln Σ exp of each row.
    fn attention(
        &mut self,
        out: Act,
        log_sums: F32,
        qk: Act,
        qkv: Act,
        shape: AttentionShape,
    ) -> Result<(), TrainError>;

    /// Writes all of `dqkv` `[tokens, Q + 2K]`: the gradient of `qk` in its first Q + K columns, that of v in the rest.
    #[expect(clippy::too_many_arguments, reason = "what the forward had, and its gradients")]
    fn attention_backward(
        &mut self,
        dqkv: Act,
        dout: Act,
        out: Act,
        log_sums: F32,
        qk: Act,
        qkv: Act,
        shape: AttentionShape,
    ) -> Result<(), TrainError>;

    /// gated = silu(gate)·up, `[tokens, I]` with I = `width`, silu(g) = g·σ(g); `gate_up` `[tokens, 2I]` holds gate, then up a token.
    fn swiglu(&mut self, gated: Act, gate_up: Act, tokens: usize, width: usize) -> Result<(), TrainError>;

    /// dgate = dgated·up·σ·(1 + gate·(1 − σ)), dup = dgated·silu(gate), into `dgate_up` `[tokens, 2I]`; writes silu(gate)·up
    /// into `gated` again where it is given.
    fn swiglu_backward(
        &mut self,
        dgate_up: Act,
        gated: Option<Act>,
        dgated: Act,
        gate_up: Act,
        tokens: usize,
        width: usize,
    ) -> Result<(), TrainError>;

    /// The losses of the loaded targets \[first, first + tokens), whose `logits` `[tokens, V]` become their gradients:
    /// with p = softmax(z) and l = ln Σ exp z, the loss l − z_target is added to the sum begun by [`Backend::begin`],
    /// in full precision, and dz = scale·(p·(1 + 2·z_loss·l) − 1\[v = target\]). Zero for a target that does not count.
    fn cross_entropy(
        &mut self,
        logits: Act,
        first: usize,
        tokens: usize,
        vocabulary: usize,
        loss: LossOptions,
    ) -> Result<(), TrainError>;

    /// Norm of the whole gradient, clipping, and AdamW:
    /// m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w·(1 − lr·λ) − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε).
    ///
    /// Where the scaled loss or the norm is not finite, it changes nothing; that is decided on the device.
    fn update(&mut self, update: &Update) -> Result<(), TrainError>;

    /// What came of the oldest update whose outcome was not asked for; waits for that update, and for nothing given later.
    /// Where there is none, waits for everything and says the nats since [`Backend::begin`]; the norm is 0 then, and
    /// nothing was skipped.
    fn outcome(&mut self) -> Result<Outcome, TrainError>;

    /// Whether methods return before their work is done, so that an update's outcome is best asked for when the next step's
    /// gradients are under way.
    fn goes_on(&self) -> bool {
        false
    }

    /// Values of a state from `first` on, as many as `into` holds; waits for what is under way.
    fn read(&self, state: State, first: usize, into: &mut [f32]) -> Result<(), TrainError>;

    /// Writes values of a state from `first` on. Weights are also rounded into those that the products read.
    fn write(&mut self, state: State, first: usize, values: &[f32]) -> Result<(), TrainError>;

    /// Activations that are there, as f32; waits for what is under way.
    fn values(&self, act: Act, into: &mut [f32]) -> Result<(), TrainError>;

    /// The gradient of a weight, for tests.
    fn gradient(&self, weight: Weight, into: &mut [f32]) -> Result<(), TrainError>;
}
