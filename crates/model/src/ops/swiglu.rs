use super::{borrow, like, values};
use crate::kernels::{swiglu_backward, swiglu_forward};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// silu(gate) · up: `gate_up` `[…, 2I]` holds gate, then up; result `[…, I]`.
///
/// # Errors
/// When the last dimension is odd.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        bail!("swiglu of {:?}", gate_up.shape());
    }
    gate_up.apply_op1(SwiGlu { width: width / 2 })
}

struct SwiGlu {
    width: usize,
}

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "candlewick-swiglu"
    }

    fn cpu_fwd(&self, gate_up: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gate_up = values(gate_up, layout)?;
        let mut output = vec![0.0; gate_up.len() / 2];
        swiglu_forward(&mut output, gate_up, self.width);
        let mut dims = layout.shape().dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.width;
        }
        Ok((CpuStorage::F32(output), Shape::from(dims)))
    }

    fn bwd(&self, gate_up: &Tensor, output: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut gate_up_grad = vec![0.0; gate_up.elem_count()];
        let mut again = vec![0.0; grad.elem_count()];
        swiglu_backward(
            &mut gate_up_grad,
            Some(&mut again),
            borrow(&grad).values()?,
            borrow(gate_up).values()?,
            self.width,
        );
        if again.as_slice() != borrow(output).values()? {
            bail!("swiglu's output came out differently the second time");
        }
        Ok(Some(like(gate_up_grad, gate_up)?))
    }
}
