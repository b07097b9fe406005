//! The same model in candle's primitive operations, whose gradients are candle's own: slow, in any precision, and
//! independent of the kernels. The oracle of the tests.

#![allow(dead_code, reason = "each test binary uses a part")]

use candle_core::{D, DType, Result, Tensor, Var};
use candlewick_model::{Architecture, ModelConfig, Parameters};
use std::collections::HashMap;

pub(crate) struct Plain {
    pub(crate) config: ModelConfig,
    pub(crate) vars: HashMap<String, Var>,
}

impl Plain {
    /// A copy of `parameters` in `dtype`.
    pub(crate) fn new(config: &ModelConfig, parameters: &Parameters, dtype: DType) -> Result<Self> {
        let vars = parameters.iter().map(|parameter| {
            let values = parameter.tensor.to_dtype(dtype)?.copy()?;
            Ok((parameter.spec.name.clone(), Var::from_tensor(&values)?))
        });
        Ok(Self { config: config.clone(), vars: vars.collect::<Result<_>>()? })
    }

    fn weight(&self, name: &str) -> &Tensor {
        self.vars[&format!("{name}.weight")].as_tensor()
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        x.broadcast_matmul(&self.weight(name).t()?)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        rms_norm(x, self.weight(name), self.config.rms_norm_eps)
    }

    /// Logits `[B, T, V]`.
    pub(crate) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let (batch, length) = ids.dims2()?;
        let embedded = self.weight("model.embed_tokens").index_select(&ids.flatten_all()?, 0)?;
        let mut x = embedded.reshape((batch, length, config.hidden_size))?;
        for layer in 0..config.num_hidden_layers {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}");
            let normed = self.norm(&x, &name("input_layernorm"))?;
            let heads = |rest: &str, heads: usize| {
                self.linear(&normed, &name(rest))?.reshape((batch, length, heads, config.head_dim))
            };
            let mut q = heads("self_attn.q_proj", config.num_attention_heads)?;
            let mut k = heads("self_attn.k_proj", config.num_key_value_heads)?;
            let v = heads("self_attn.v_proj", config.num_key_value_heads)?;
            if config.architecture == Architecture::Qwen3 {
                q = self.norm(&q, &name("self_attn.q_norm"))?;
                k = self.norm(&k, &name("self_attn.k_norm"))?;
            }
            let (q, k) = (rope(&q, config.rope_theta)?, rope(&k, config.rope_theta)?);
            let mixed = attention(&q, &k, &v)?.reshape((batch, length, config.query_size()))?;
            x = (x + self.linear(&mixed, &name("self_attn.o_proj"))?)?;
            let normed = self.norm(&x, &name("post_attention_layernorm"))?;
            let gated = swiglu(
                &self.linear(&normed, &name("mlp.gate_proj"))?,
                &self.linear(&normed, &name("mlp.up_proj"))?,
            )?;
            x = (x + self.linear(&gated, &name("mlp.down_proj"))?)?;
        }
        let x = self.norm(&x, "model.norm")?;
        self.linear(&x, if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" })
    }

    /// Mean cross-entropy over the counted targets.
    pub(crate) fn loss(&self, ids: &Tensor, targets: &[u32]) -> Result<Tensor> {
        cross_entropy(&self.forward(ids)?, targets)
    }
}

pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)
}

pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let sigmoid = ((gate.neg()?.exp()? + 1.0)?).recip()?;
    gate * sigmoid * up
}

/// `x` `[B, T, H, D]`.
pub(crate) fn rope(x: &Tensor, theta: f64) -> Result<Tensor> {
    let (_, length, _, head_dim) = x.dims4()?;
    let half = head_dim / 2;
    let angles: Vec<f64> = (0..length)
        .flat_map(|t| (0..half).map(move |i| t as f64 * theta.powf(-((2 * i) as f64) / head_dim as f64)))
        .collect();
    let angles = Tensor::from_vec(angles, (1, length, 1, half), x.device())?;
    let (cos, sin) = (angles.cos()?.to_dtype(x.dtype())?, angles.sin()?.to_dtype(x.dtype())?);
    let (low, high) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
    let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Tensor::cat(&[turned_low, turned_high], 3)
}

/// `q` `[B, T, H, D]`, `k` and `v` `[B, T, G, D]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (batch, length, heads, head_dim) = q.dims4()?;
    let groups = k.dim(2)?;
    let repeat = |x: &Tensor| -> Result<Tensor> {
        x.unsqueeze(3)?
            .broadcast_as((batch, length, groups, heads / groups, head_dim))?
            .reshape((batch, length, heads, head_dim))?
            .transpose(1, 2)?
            .contiguous()
    };
    let (k, v) = (repeat(k)?, repeat(v)?);
    let q = q.transpose(1, 2)?.contiguous()?;
    let scores = (q.matmul(&k.transpose(2, 3)?)? / (head_dim as f64).sqrt())?;
    let mask: Vec<f64> =
        (0..length).flat_map(|t| (0..length).map(move |s| if s <= t { 0.0 } else { -1e30 })).collect();
    let mask = Tensor::from_vec(mask, (length, length), q.device())?.to_dtype(q.dtype())?;
    let probabilities = softmax(&scores.broadcast_add(&mask)?)?;
    probabilities.matmul(&v)?.transpose(1, 2)?.contiguous()
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exponentials = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}

/// Mean over the counted targets; `logits` `[…, V]`.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let vocabulary = logits.dim(D::Minus1)?;
    let logits = logits.reshape((targets.len(), vocabulary))?;
    let max = logits.max_keepdim(1)?.detach();
    let log_sums = (logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + &max)?;
    let counted: Vec<f64> = targets.iter().map(|&target| f64::from(target != u32::MAX)).collect();
    let count = counted.iter().sum::<f64>();
    let indices: Vec<u32> =
        targets.iter().map(|&target| if target == u32::MAX { 0 } else { target }).collect();
    let column = |values: Tensor| values.reshape((targets.len(), 1));
    let indices = column(Tensor::from_vec(indices, targets.len(), logits.device())?)?;
    let counted =
        column(Tensor::from_vec(counted, targets.len(), logits.device())?.to_dtype(logits.dtype())?)?;
    let losses = (log_sums - logits.gather(&indices, 1)?)?;
    (losses * counted)?.sum_all()? / count
}
