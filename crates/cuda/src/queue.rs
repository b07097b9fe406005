//! The work that a device does, one piece after the other.
//!
//! What a training step asks of a GPU is four things: launches of kernels, products of matrices, zeros, and copies. They
//! are described here by plain values, so that the same step can be given to a GPU, to a list that a test reads, or to
//! the kernels compiled for the host.
use std::fmt::Debug;

use crate::{Trouble, kernels::Geometry};

/// Bytes of a device's memory that a product may use beside its operands; what cuBLAS asks for on Hopper.
pub const WORKSPACE_BYTES: usize = 32 << 20;

/// Copies to a device that may be under way at a time; each has page-locked memory of its own.
pub const STAGES: usize = 8;

/// An address in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Address {
    /// So many bytes on.
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Type of the values behind a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `__nv_bfloat16`.
    Bf16,
    /// `float`.
    F32,
    /// `unsigned`.
    U32,
    /// `double`.
    F64,
}

impl Element {
    /// Its bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Values in a device's memory: all that a kernel may touch through a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub at: Address,
    /// Their type.
    pub element: Element,
    /// How many.
    pub len: usize,
}

impl Span {
    /// Bytes of all of them.
    pub fn bytes(self) -> usize {
        self.len * self.element.size()
    }

    /// `len` values from value `first` of these.
    ///
    /// # Panics
    /// When they are not inside.
    pub fn part(self, first: usize, len: usize) -> Self {
        assert!(first + len <= self.len, "{first} and {len} values of {}", self.len);
        Self { at: self.at.plus(first * self.element.size()), len, ..self }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A pointer to values.
    Span(Span),
    /// A pointer that is not given.
    Null,
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `unsigned long long`.
    U64(u64),
    /// `float`.
    F32(f32),
}

impl Argument {
    /// Its bytes as a kernel reads them, in the low end of a word.
    pub fn bits(self) -> u64 {
        match self {
            Self::Span(span) => span.at.0,
            Self::Null => 0,
            Self::I32(value) => u64::from(value.cast_unsigned()),
            Self::I64(value) => value.cast_unsigned(),
            Self::U64(value) => value,
            Self::F32(value) => u64::from(value.to_bits()),
        }
    }

    /// How many bytes the kernel's parameter has.
    pub fn size(self) -> usize {
        match self {
            Self::I32(_) | Self::F32(_) => 4,
            Self::Span(_) | Self::Null | Self::I64(_) | Self::U64(_) => 8,
        }
    }
}

/// A kernel with its grid and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which, over which grid.
    pub geometry: Geometry,
    /// In the order of its parameters.
    pub arguments: Vec<Argument>,
}

/// What a product computes, by row-major matrices of bf16, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// y = x·Wᵀ: x `[tokens, inputs]`, W `[outputs, inputs]`, y `[tokens, outputs]`.
    Forward,
    /// dx = dy·W.
    BackwardInput,
    /// dW = dyᵀ·x.
    BackwardWeight,
}

/// The sizes and kind of a product: what a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProductShape {
    /// Which of the three.
    pub form: Form,
    /// Rows of x and y.
    pub tokens: usize,
    /// Columns of y, rows of W.
    pub outputs: usize,
    /// Columns of x and of W.
    pub inputs: usize,
    /// Whether it is added to what is there.
    pub add: bool,
}

/// A product of two matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Sizes and kind.
    pub shape: ProductShape,
    /// The first operand as its formula has it: x, dy, dy.
    pub left: Span,
    /// The second: W, W, x.
    pub right: Span,
    /// The result.
    pub result: Span,
}

/// A device that does what it is given in the order in which it is given.
pub trait Queue: Debug + Send {
    /// Runs a kernel.
    fn launch(&mut self, launch: &Launch) -> Result<(), Trouble>;

    /// Multiplies.
    fn product(&mut self, product: &Product) -> Result<(), Trouble>;

    /// Writes zeros.
    fn zero(&mut self, span: Span) -> Result<(), Trouble>;

    /// Copies to the beginning of a span; `bytes` is the caller's again when this returns.
    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), Trouble>;

    /// Copies a span to the host once everything given before is done, and does not wait: [`Queue::answer`] has it.
    fn ask(&mut self, from: Span) -> Result<(), Trouble>;

    /// What the oldest [`Queue::ask`] that has no answer yet brought; waits for it, and for nothing given later.
    ///
    /// # Panics
    /// When nothing was asked for, or `into` has another length than that span.
    fn answer(&mut self, into: &mut [u8]) -> Result<(), Trouble>;

    /// Copies from the beginning of a span once everything given before is done; waits for it.
    fn download(&self, from: Span, into: &mut [u8]) -> Result<(), Trouble>;
}
