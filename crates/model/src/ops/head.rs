use super::{like, values};
use crate::kernels::{CrossEntropyGradient, IGNORED_TARGET, Matrix, MatrixMut, cross_entropy, multiply};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, Mutex, OnceLock};

/// The loss of the output matrix.
#[derive(Debug)]
pub struct HeadLoss {
    /// scale · Σ nats, a scalar to differentiate.
    pub scaled: Tensor,
    /// Σ nats over the counted targets, unscaled and in full precision.
    pub nats: f64,
}

/// Cross-entropy of softmax(W·x): `x` `[…, C]`, `weight` `[V, C]`, a target a row; `0xFFFFFFFF` counts for nothing.
///
/// With `z_loss` z, `scaled` also has z · (ln Σ exp)² of each counted token, in its gradient only. The gradients are made
/// together with the loss, while the logits are at hand, and wait for the backward pass.
///
/// # Errors
/// When the sizes do not agree or a target is beyond the vocabulary.
pub fn head_loss(x: &Tensor, weight: &Tensor, targets: &[u32], scale: f64, z_loss: f64) -> Result<HeadLoss> {
    let (vocabulary, width) = weight.dims2()?;
    if x.elem_count() != targets.len() * width {
        bail!("{} targets for {:?} of width {width}", targets.len(), x.shape());
    }
    if let Some(id) = targets.iter().find(|&&id| id != IGNORED_TARGET && id as usize >= vocabulary) {
        bail!("target {id} is beyond the vocabulary of {vocabulary}");
    }
    let nats = Arc::new(OnceLock::new());
    let head = Head {
        targets: targets.to_vec(),
        width,
        scale,
        z_loss,
        wanted: x.track_op() || weight.track_op(),
        nats: nats.clone(),
        gradients: Mutex::new(None),
    };
    let scaled = x.apply_op2(weight, head)?;
    let Some(&nats) = nats.get() else { bail!("the loss was not computed") };
    Ok(HeadLoss { scaled, nats })
}

struct Head {
    targets: Vec<u32>,
    width: usize,
    scale: f64,
    z_loss: f64,
    /// Whether a backward pass may follow.
    wanted: bool,
    nats: Arc<OnceLock<f64>>,
    gradients: Mutex<Option<(Vec<f32>, Vec<f32>)>>,
}

impl CustomOp2 for Head {
    fn name(&self) -> &'static str {
        "candlewick-head-loss"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (values(x, xl)?, values(w, wl)?);
        let (tokens, vocabulary) = (self.targets.len(), weight.len() / self.width);
        let x_tc = Matrix::new(x, tokens, self.width);
        let w_vc = Matrix::new(weight, vocabulary, self.width);
        let (mut logits, mut losses) = (vec![0.0; tokens * vocabulary], vec![0.0; tokens]);
        let z_tv = MatrixMut::new(&mut logits, tokens, vocabulary);
        multiply(z_tv, x_tc, w_vc.transposed(), 1.0, false, true);
        let gradient = CrossEntropyGradient { scale: self.scale as f32, z_loss: self.z_loss as f32 };
        let gradient = self.wanted.then_some(gradient);
        cross_entropy(&mut losses, &mut logits, &self.targets, vocabulary, gradient);
        let nats = losses.iter().map(|&nats| f64::from(nats)).sum::<f64>();
        if self.wanted {
            let dz_tv = Matrix::new(&logits, tokens, vocabulary);
            let (mut x_grad, mut weight_grad) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
            let dx_tc = MatrixMut::new(&mut x_grad, tokens, self.width);
            multiply(dx_tc, dz_tv, w_vc, 1.0, false, true);
            let dw_vc = MatrixMut::new(&mut weight_grad, vocabulary, self.width);
            multiply(dw_vc, dz_tv.transposed(), x_tc, 1.0, false, true);
            if let Ok(mut slot) = self.gradients.lock() {
                *slot = Some((x_grad, weight_grad));
            }
        }
        let _ = self.nats.set(nats);
        Ok((CpuStorage::F32(vec![(nats * self.scale) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let waiting = self.gradients.lock().ok().and_then(|mut slot| slot.take());
        let Some((mut x_grad, mut weight_grad)) = waiting else {
            bail!("head_loss allows one backward pass")
        };
        let factor = grad.to_scalar::<f32>()?;
        if factor != 1.0 {
            x_grad.iter_mut().chain(&mut weight_grad).for_each(|value| *value *= factor);
        }
        Ok((Some(like(x_grad, x)?), Some(like(weight_grad, w)?)))
    }
}
