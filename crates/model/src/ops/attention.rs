use super::{borrow, like, values};
use crate::kernels::{AttentionShape, attention_backward, attention_forward};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Causal attention: `q` `[B, T, H, D]`, `k` and `v` `[B, T, G, D]`, result as `q`.
///
/// # Errors
/// When the shapes do not agree or G does not divide H.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (batch, length, heads, head_dim) = q.dims4()?;
    let key_value_heads = k.dim(2)?;
    let expected = [batch, length, key_value_heads, head_dim];
    if k.dims() != expected || v.dims() != expected || !heads.is_multiple_of(key_value_heads) {
        bail!("attention of {:?} to {:?} and {:?}", q.shape(), k.shape(), v.shape());
    }
    let shape = AttentionShape { batch, length, heads, key_value_heads, head_dim };
    q.apply_op3(k, v, Attention { shape, log_sums: OnceLock::new() })
}

struct Attention {
    shape: AttentionShape,
    /// Kept from the forward for the backward pass.
    log_sums: OnceLock<Vec<f32>>,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "candlewick-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let q = values(q, ql)?;
        let mut output = vec![0.0; q.len()];
        let AttentionShape { batch, length, heads, .. } = self.shape;
        let mut log_sums = vec![0.0; batch * length * heads];
        attention_forward(&mut output, &mut log_sums, (q, values(k, kl)?, values(v, vl)?), self.shape);
        // An operation runs once; were it run again, on equal inputs, the sums would be the same.
        let _ = self.log_sums.set(log_sums);
        Ok((CpuStorage::F32(output), ql.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        output: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(log_sums) = self.log_sums.get() else { bail!("attention's backward before its forward") };
        let grad = grad.contiguous()?;
        let [q_values, k_values, v_values] = [q, k, v].map(borrow);
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.elem_count()]);
        attention_backward(
            (&mut dq, &mut dk, &mut dv),
            borrow(&grad).values()?,
            borrow(output).values()?,
            log_sums,
            (q_values.values()?, k_values.values()?, v_values.values()?),
            self.shape,
        );
        Ok((Some(like(dq, q)?), Some(like(dk, k)?), Some(like(dv, v)?)))
    }
}
