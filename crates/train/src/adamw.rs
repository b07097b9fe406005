use crate::{OptimizerOptions, gradients::Gradients};
use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use candlewick_model::Parameters;
use rayon::prelude::*;
use std::sync::Mutex;

const CHUNK: usize = 16_384;

/// AdamW with decoupled decay; moments in f32, one buffer a parameter.
#[derive(Debug)]
pub struct AdamW {
    options: OptimizerOptions,
    moments: Vec<Moments>,
}

#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

/// The constants of one update.
#[derive(Debug, Clone, Copy)]
struct Update {
    /// Learning rate of this step.
    lr: f32,
    /// Factor of the decay: 1 − lr · weight_decay.
    keep: f32,
    betas: [f32; 2],
    eps: f32,
    /// 1 / (1 − βᵗ), which undo the moments' start at zero.
    corrections: [f32; 2],
    /// Factor on the gradient, from clipping.
    clip: f32,
}

impl AdamW {
    /// Moments of zero.
    pub fn new(options: OptimizerOptions, parameters: &Parameters) -> Self {
        let zeros = |n: usize| Moments { first: vec![0.0; n], second: vec![0.0; n] };
        Self { options, moments: parameters.iter().map(|parameter| zeros(parameter.spec.len())).collect() }
    }

    pub(crate) fn options(&self) -> &OptimizerOptions {
        &self.options
    }

    pub(crate) fn moments(&self) -> &[Moments] {
        &self.moments
    }

    pub(crate) fn replace(&mut self, moments: Vec<Moments>) {
        self.moments = moments;
    }

    /// Update number `step` (from 1) with gradient g, whose norm is given:
    ///
    /// g ← g · min(1, clip / (‖g‖ + 1e-6)); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
    /// w ← w·(1 − lr·λ) − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε), with λ = 0 where the parameter does not decay.
    pub(crate) fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        norm: f64,
        step: u64,
        lr: f64,
    ) -> candle_core::Result<()> {
        let OptimizerOptions { betas, eps, weight_decay, clip_grad_norm, .. } = self.options;
        let clip = clip_grad_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let correction = |beta: f64| (1.0 / (1.0 - beta.powi(step.min(i32::MAX as u64) as i32))) as f32;
        for ((parameter, gradient), moments) in parameters.iter().zip(gradients.iter()).zip(&mut self.moments)
        {
            let decay = if parameter.spec.decay { weight_decay } else { 0.0 };
            let update = Update {
                lr: lr as f32,
                keep: (1.0 - lr * decay) as f32,
                betas: betas.map(|beta| beta as f32),
                eps: eps as f32,
                corrections: betas.map(correction),
                clip: clip as f32,
            };
            let update = InPlace { update, gradient, moments: Mutex::new(moments) };
            parameter.var.as_tensor().inplace_op1(&update)?;
        }
        Ok(())
    }
}

/// The update of one parameter as an operation on its storage.
struct InPlace<'a> {
    update: Update,
    gradient: &'a [f32],
    /// candle hands out the weights mutably but the operation only by reference.
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "candlewick-adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else { bail!("weights are expected in f32") };
        let Some((first, end)) = layout.contiguous_offsets() else {
            bail!("weights are expected without gaps")
        };
        let Ok(mut moments) = self.moments.lock() else { bail!("the moments are poisoned") };
        let Moments { first: m, second: v } = &mut **moments;
        values[first..end]
            .par_chunks_mut(CHUNK)
            .zip(self.gradient.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .for_each(|(((w, g), m), v)| self.update.apply(w, g, m, v));
        Ok(())
    }
}

impl Update {
    fn apply(&self, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let [b1, b2] = self.betas;
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * self.clip;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            let root = (*v * self.corrections[1]).sqrt() + self.eps;
            *w = *w * self.keep - self.lr * (*m * self.corrections[0]) / root;
        }
    }
}
