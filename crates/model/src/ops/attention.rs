use super::{borrow, like, values};
use crate::kernels::{AttentionShape, attention_backward, attention_forward, attention_scratch_len};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Causal attention `[B, T, H·D]` of turned queries and keys `qk` `[B, T, (H + G)·D]` and the values in the last G heads of
/// `qkv` `[B, T, (H + 2G)·D]`.
///
/// # Errors
/// When the shapes do not agree or G does not divide H.
pub fn attention(qk: &Tensor, qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, length, heads, key_value_heads, .. } = shape;
    let fits =
        qk.dims() == [batch, length, shape.qk_width()] && qkv.dims() == [batch, length, shape.qkv_width()];
    if !fits || !heads.is_multiple_of(key_value_heads) {
        bail!("attention of {:?} and {:?} for {shape:?}", qk.shape(), qkv.shape());
    }
    qk.apply_op2(qkv, Attention { shape, log_sums: OnceLock::new() })
}

struct Attention {
    shape: AttentionShape,
    /// Kept from the forward for the backward pass.
    log_sums: OnceLock<Vec<f32>>,
}

impl Attention {
    fn scratch(&self) -> Vec<f32> {
        vec![0.0; attention_scratch_len(self.shape, rayon::current_num_threads())]
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "candlewick-attention"
    }

    fn cpu_fwd(
        &self,
        qk: &CpuStorage,
        qkl: &Layout,
        qkv: &CpuStorage,
        qkvl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let AttentionShape { batch, length, heads, head_dim, .. } = self.shape;
        let mut output = vec![0.0; batch * length * heads * head_dim];
        let mut log_sums = vec![0.0; batch * length * heads];
        let inputs = (values(qk, qkl)?, values(qkv, qkvl)?);
        attention_forward(&mut output, &mut log_sums, inputs, self.shape, &mut self.scratch());
        // An operation runs once; were it run again, on equal inputs, the sums would be the same.
        let _ = self.log_sums.set(log_sums);
        Ok((CpuStorage::F32(output), (batch, length, heads * head_dim).into()))
    }

    fn bwd(
        &self,
        qk: &Tensor,
        qkv: &Tensor,
        output: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(log_sums) = self.log_sums.get() else { bail!("attention's backward before its forward") };
        let grad = grad.contiguous()?;
        let mut packed = vec![0.0; qkv.elem_count()];
        attention_backward(
            &mut packed,
            borrow(&grad).values()?,
            borrow(output).values()?,
            log_sums,
            (borrow(qk).values()?, borrow(qkv).values()?),
            self.shape,
            &mut self.scratch(),
        );
        // The kernel packs both; only the values came from `qkv`.
        let (width, packed_width) = (self.shape.qk_width(), self.shape.qkv_width());
        let mut qk_grad = Vec::with_capacity(qk.elem_count());
        for row in packed.chunks_exact_mut(packed_width) {
            qk_grad.extend_from_slice(&row[..width]);
            row[..width].fill(0.0);
        }
        Ok((Some(like(qk_grad, qk)?), Some(like(packed, qkv)?)))
    }
}
