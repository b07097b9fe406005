use super::{borrow, like, values};
use crate::kernels::{embedding_backward, embedding_forward};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

/// Rows of `weight` `[V, C]` chosen by `ids` `[B, T]` u32: `[B, T, C]`.
///
/// # Errors
/// When an id is not below V.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (rows, length) = ids.dims2()?;
    let (vocabulary, width) = weight.dims2()?;
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        bail!("token id {id} is beyond the vocabulary of {vocabulary}");
    }
    weight.apply_op1(Embedding { ids, width, shape: (rows, length, width).into() })
}

struct Embedding {
    ids: Vec<u32>,
    width: usize,
    shape: Shape,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "candlewick-embedding"
    }

    fn cpu_fwd(&self, weight: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut output = vec![0.0; self.shape.elem_count()];
        embedding_forward(&mut output, values(weight, layout)?, &self.ids, self.width);
        Ok((CpuStorage::F32(output), self.shape.clone()))
    }

    fn bwd(&self, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut weight_grad = vec![0.0; weight.elem_count()];
        embedding_backward(&mut weight_grad, borrow(&grad).values()?, &self.ids, self.width);
        Ok(Some(like(weight_grad, weight)?))
    }
}
