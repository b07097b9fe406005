//! The arithmetic of a training step on slices of f32, forward and backward, each with its formula.
//!
//! Nothing here knows tensors or autograd; [`crate::ops`] wraps these functions for candle. Work is split among
//! the threads of the current rayon pool in chunks whose bounds do not depend on their number, and partial sums
//! are added in a fixed order.
//!
//! Sizes are asserted: callers check shapes, a mismatch here is a bug.

mod adamw;
mod attention;
mod cross_entropy;
mod embedding;
mod matrix;
mod product;
mod rms_norm;
mod rope;
mod rounding;
mod swiglu;
mod vector;

pub use adamw::{AdamWUpdate, Moment, adamw, sum_of_squares, sum_of_squares_len};
pub use attention::{AttentionShape, attention_backward, attention_forward, attention_scratch_len};
pub use cross_entropy::{CrossEntropyGradient, IGNORED_TARGET, cross_entropy};
pub use embedding::{embedding_backward, embedding_forward};
pub use matrix::{Matrix, MatrixMut};
pub use product::{multiply, packing_bytes};
pub use rms_norm::{add_rms_norm_forward, rms_norm_backward, rms_norm_backward_len, rms_norm_forward};
pub use rope::{
    HeadNorms, RotaryTable, qk_norm_rope_backward, qk_norm_rope_backward_len, qk_norm_rope_forward,
};
pub use rounding::{RoundingKey, round_to_bf16};
pub use swiglu::{swiglu_backward, swiglu_forward};
