use super::{borrow, like, values};
use crate::kernels::{swiglu_backward, swiglu_forward};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// silu(gate) · up, elementwise.
///
/// # Errors
/// When the shapes differ.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.shape() != up.shape() {
        bail!("swiglu of {:?} and {:?}", gate.shape(), up.shape());
    }
    gate.apply_op2(up, SwiGlu)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "candlewick-swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gl: &Layout,
        up: &CpuStorage,
        ul: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gate = values(gate, gl)?;
        let mut output = vec![0.0; gate.len()];
        swiglu_forward(&mut output, gate, values(up, ul)?);
        Ok((CpuStorage::F32(output), gl.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (mut gate_grad, mut up_grad) = (vec![0.0; gate.elem_count()], vec![0.0; up.elem_count()]);
        let (gate_values, up_values) = (borrow(gate), borrow(up));
        swiglu_backward(
            &mut gate_grad,
            &mut up_grad,
            borrow(&grad).values()?,
            gate_values.values()?,
            up_values.values()?,
        );
        Ok((Some(like(gate_grad, gate)?), Some(like(up_grad, up)?)))
    }
}
