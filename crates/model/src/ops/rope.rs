use super::{borrow, like, values};
use crate::kernels::{
    AttentionShape, HeadNorms, RotaryTable, qk_norm_rope_backward, qk_norm_rope_backward_len,
    qk_norm_rope_forward,
};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// Queries and keys `[B, T, (H + G)·D]` of `qkv` `[B, T, (H + 2G)·D]`, each head normed by the scales `[D]` of queries and
/// of keys, if there are any, and turned by its position.
///
/// # Errors
/// When the shapes do not agree or T exceeds the table.
pub fn qk_norm_rope(
    qkv: &Tensor,
    norms: Option<&(Tensor, Tensor)>,
    table: &Arc<RotaryTable>,
    shape: AttentionShape,
    eps: f64,
) -> Result<Tensor> {
    if qkv.dims() != [shape.batch, shape.length, shape.qkv_width()] {
        bail!("queries, keys and values of {:?} for {shape:?}", qkv.shape());
    }
    if shape.length > table.positions() {
        bail!("{} tokens exceed the {} positions of the rotary table", shape.length, table.positions());
    }
    let op = QkNormRope { table: table.clone(), shape, eps: eps as f32 };
    match norms {
        Some((q, k)) => {
            if q.dims() != [shape.head_dim] || k.dims() != [shape.head_dim] {
                bail!("norms of {:?} and {:?} for {shape:?}", q.shape(), k.shape());
            }
            qkv.apply_op3(q, k, op)
        }
        None => qkv.apply_op1(op),
    }
}

struct QkNormRope {
    table: Arc<RotaryTable>,
    shape: AttentionShape,
    eps: f32,
}

impl QkNormRope {
    fn forward(&self, qkv: &[f32], norms: HeadNorms<'_>) -> (CpuStorage, Shape) {
        let AttentionShape { batch, length, .. } = self.shape;
        let mut qk = vec![0.0; batch * length * self.shape.qk_width()];
        qk_norm_rope_forward(&mut qk, qkv, norms, &self.table, self.shape, self.eps);
        (CpuStorage::F32(qk), (batch, length, self.shape.qk_width()).into())
    }

    /// The gradient of `qkv` for that of `qk`, with zeros for the values.
    fn backward(
        &self,
        qkv: &Tensor,
        grad: &Tensor,
        norms: HeadNorms<'_>,
        norm_grads: Option<(&mut [f32], &mut [f32])>,
    ) -> Result<Tensor> {
        let (width, packed) = (self.shape.qk_width(), self.shape.qkv_width());
        let grad = grad.contiguous()?;
        let mut qkv_grad = vec![0.0; qkv.elem_count()];
        let rows = qkv_grad.chunks_exact_mut(packed);
        for (packed, grad) in rows.zip(borrow(&grad).values()?.chunks_exact(width)) {
            packed[..width].copy_from_slice(grad);
        }
        let mut partials = vec![0.0; qk_norm_rope_backward_len(self.shape)];
        qk_norm_rope_backward(
            &mut qkv_grad,
            norm_grads,
            false,
            borrow(qkv).values()?,
            norms,
            &self.table,
            (self.shape, &mut partials),
            self.eps,
        );
        like(qkv_grad, qkv)
    }
}

impl CustomOp1 for QkNormRope {
    fn name(&self) -> &'static str {
        "candlewick-rope"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.forward(values(qkv, layout)?, None))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(qkv, grad, None, None)?))
    }
}

impl CustomOp3 for QkNormRope {
    fn name(&self) -> &'static str {
        "candlewick-qk-norm-rope"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        layout: &Layout,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.forward(values(qkv, layout)?, Some((values(q, ql)?, values(k, kl)?))))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        q: &Tensor,
        k: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [q_values, k_values] = [q, k].map(borrow);
        let [mut q_grad, mut k_grad] = [q, k].map(|norm| vec![0.0; norm.elem_count()]);
        let norms = Some((q_values.values()?, k_values.values()?));
        let qkv_grad = self.backward(qkv, grad, norms, Some((&mut q_grad, &mut k_grad)))?;
        Ok((Some(qkv_grad), Some(like(q_grad, q)?), Some(like(k_grad, k)?)))
    }
}
