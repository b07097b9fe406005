//! The arithmetic of a training step on slices of f32, forward and backward, each with its formula.
//!
//! Nothing here knows tensors or autograd; [`crate::ops`] wraps these functions for candle. Work is split among
//! the threads of the current rayon pool in chunks whose bounds do not depend on their number, and partial sums
//! are added in a fixed order.
//!
//! Sizes are asserted: callers check shapes, a mismatch here is a bug.

mod attention;
mod cross_entropy;
mod embedding;
mod matrix;
mod rms_norm;
mod rope;
mod swiglu;
mod vector;

pub use attention::{AttentionShape, attention_backward, attention_forward, scores_len};
pub use cross_entropy::{HeadGradients, IGNORED_TARGET, head_cross_entropy, logits_len};
pub use embedding::{embedding_backward, embedding_forward};
pub use matrix::{Matrix, MatrixMut, multiply, packing_bytes};
pub use rms_norm::{rms_norm_backward, rms_norm_backward_len, rms_norm_forward};
pub use rope::{RotaryTable, rotate};
pub use swiglu::{swiglu_backward, swiglu_forward};
