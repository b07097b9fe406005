use super::{borrow, like, values};
use crate::kernels::{rms_norm_backward, rms_norm_forward};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// RMSNorm over the last dimension: `x` `[…, C]`, `weight` `[C]`.
///
/// # Errors
/// When the last dimension is not the weight's.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if x.dim(candle_core::D::Minus1)? != weight.elem_count() {
        bail!("rms_norm of {:?} with a weight of {:?}", x.shape(), weight.shape());
    }
    x.apply_op2(weight, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "candlewick-rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = values(x, xl)?;
        let mut output = vec![0.0; x.len()];
        rms_norm_forward(&mut output, x, values(w, wl)?, self.eps);
        Ok((CpuStorage::F32(output), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (x_values, w_values, grad) = (borrow(x), borrow(w), borrow(&grad));
        let (mut x_grad, mut w_grad) = (vec![0.0; x.elem_count()], vec![0.0; w.elem_count()]);
        let target = (x_grad.as_mut_slice(), false);
        rms_norm_backward(
            target,
            &mut w_grad,
            grad.values()?,
            x_values.values()?,
            w_values.values()?,
            self.eps,
        );
        Ok((Some(like(x_grad, x)?), Some(like(w_grad, w)?)))
    }
}
