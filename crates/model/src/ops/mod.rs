//! The kernels as candle operations with gradients of their own.
//!
//! candle's own fused operations (`rms_norm`, `softmax_last_dim`, `rope`) have no gradient and lose it silently;
//! its primitive ones have, at the price of a pass over memory each. These are for the CPU and f32.

mod attention;
mod embedding;
mod head;
mod linear;
mod rms_norm;
mod rope;
mod swiglu;

pub use attention::attention;
pub use embedding::embedding;
pub use head::{HeadLoss, head_loss};
pub use linear::linear;
pub use rms_norm::rms_norm;
pub use rope::qk_norm_rope;
pub use swiglu::swiglu;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};
use std::ops::Deref;

/// The values of a contiguous f32 storage.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((first, end)) => Ok(&storage.as_slice::<f32>()?[first..end]),
        None => bail!("an operation of candlewick needs contiguous values"),
    }
}

/// A tensor's storage, locked for reading for as long as this lives.
pub(crate) struct Borrowed<'a, G> {
    storage: G,
    layout: &'a Layout,
}

pub(crate) fn borrow(tensor: &Tensor) -> Borrowed<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Borrowed { storage, layout }
}

impl<G: Deref<Target = Storage>> Borrowed<'_, G> {
    pub(crate) fn values(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout),
            _ => bail!("an operation of candlewick needs values on the CPU"),
        }
    }
}

/// A tensor on the CPU with the shape of `like`.
fn like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), like.device())
}
