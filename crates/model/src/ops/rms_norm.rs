use super::{borrow, like, values};
use crate::kernels::{rms_norm_backward, rms_norm_backward_len, rms_norm_forward};
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
        let weight = values(w, wl)?;
        let mut rstd = vec![0.0; x.len() / weight.len()];
        rms_norm_forward(&mut output, &mut rstd, x, weight, self.eps);
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
        let (x_values, w_values) = (x_values.values()?, w_values.values()?);
        let rows = x_values.len() / w_values.len();
        let (mut rstd, mut again) = (vec![0.0; rows], vec![0.0; x_values.len()]);
        rms_norm_forward(&mut again, &mut rstd, x_values, w_values, self.eps);
        rms_norm_backward(
            (&mut x_grad, false),
            (&mut w_grad, false),
            grad.values()?,
            (x_values, &rstd),
            w_values,
            &mut vec![0.0; rms_norm_backward_len(rows, w_values.len())],
        );
        Ok((Some(like(x_grad, x)?), Some(like(w_grad, w)?)))
    }
}
