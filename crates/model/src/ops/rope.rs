use super::{borrow, like, values};
use crate::kernels::{RotaryTable, rotate};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// Turns `x` `[B, T, H, D]` by its positions 0..T.
///
/// # Errors
/// When T exceeds the table.
pub fn rope(x: &Tensor, table: &Arc<RotaryTable>) -> Result<Tensor> {
    let (_, length, heads, _) = x.dims4()?;
    if length > table.positions() {
        bail!("{length} tokens exceed the {} positions of the rotary table", table.positions());
    }
    x.apply_op1(Rope { table: table.clone(), length, heads })
}

struct Rope {
    table: Arc<RotaryTable>,
    length: usize,
    heads: usize,
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "candlewick-rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut output = values(x, layout)?.to_vec();
        rotate(&mut output, &self.table, self.length, self.heads, false);
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut x_grad = borrow(&grad).values()?.to_vec();
        rotate(&mut x_grad, &self.table, self.length, self.heads, true);
        Ok(Some(like(x_grad, x)?))
    }
}
