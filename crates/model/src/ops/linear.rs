use super::{borrow, like, values};
use crate::kernels::{Matrix, MatrixMut, multiply};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

/// x·Wᵀ: `x` `[…, in]`, `weight` `[out, in]`, result `[…, out]`.
///
/// # Errors
/// When the inner dimensions differ.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, input) = weight.dims2()?;
    if x.dim(D::Minus1)? != input {
        bail!("linear of {:?} with a weight of {:?}", x.shape(), weight.shape());
    }
    x.apply_op2(weight, Linear)
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "candlewick-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (out, input) = wl.shape().dims2()?;
        let tokens = xl.shape().elem_count() / input;
        let mut output = vec![0.0; tokens * out];
        let x_ti = Matrix::new(values(x, xl)?, tokens, input);
        let w_oi = Matrix::new(values(w, wl)?, out, input);
        multiply(MatrixMut::new(&mut output, tokens, out), x_ti, w_oi.transposed(), 1.0, false, true);
        let mut dims = xl.shape().dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        Ok((CpuStorage::F32(output), Shape::from(dims)))
    }

    /// dx = dy·W, dW = dyᵀ·x.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (out, input) = w.dims2()?;
        let tokens = x.elem_count() / input;
        let (x_values, w_values, grad) = (borrow(x), borrow(w), borrow(&grad));
        let dy_to = Matrix::new(grad.values()?, tokens, out);
        let (mut x_grad, mut w_grad) = (vec![0.0; x.elem_count()], vec![0.0; w.elem_count()]);
        let w_oi = Matrix::new(w_values.values()?, out, input);
        multiply(MatrixMut::new(&mut x_grad, tokens, input), dy_to, w_oi, 1.0, false, true);
        let x_ti = Matrix::new(x_values.values()?, tokens, input);
        multiply(MatrixMut::new(&mut w_grad, out, input), dy_to.transposed(), x_ti, 1.0, false, true);
        Ok((Some(like(x_grad, x)?), Some(like(w_grad, w)?)))
    }
}
