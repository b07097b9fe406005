use crate::{Architecture, ModelConfig, ModelError, Transformer};
use candle_core::{Device, Tensor};
use candle_nn::{ops, rotary_emb};

/// Inference with a cache of keys and values: each call sees what the calls before it were given.
///
/// Written in candle's own operations (no gradients), apart from the trained forward pass, so that the two can be
/// held against each other.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    cos: Tensor,
    sin: Tensor,
    device: Device,
    length: usize,
}

#[derive(Debug)]
struct Block {
    input_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qk_norm: Option<(Tensor, Tensor)>,
    o: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    /// Keys and values so far, `[1, G, length, D]` each.
    cache: Option<(Tensor, Tensor)>,
}

impl Decoder {
    /// A decoder with an empty cache. It shares the transformer's parameters: do not train it meanwhile.
    ///
    /// # Errors
    /// `INTERNAL` only.
    pub fn new(transformer: &Transformer) -> Result<Self, ModelError> {
        let config = transformer.config().clone();
        let parameters = transformer.parameters();
        let get = |name: &str| -> Result<Tensor, ModelError> { Ok(parameters.get(name)?.clone()) };
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let weight = |rest: &str| get(&format!("model.layers.{layer}.{rest}.weight"));
                Ok(Block {
                    input_norm: weight("input_layernorm")?,
                    q: weight("self_attn.q_proj")?,
                    k: weight("self_attn.k_proj")?,
                    v: weight("self_attn.v_proj")?,
                    qk_norm: match config.architecture {
                        Architecture::Qwen3 => {
                            Some((weight("self_attn.q_norm")?, weight("self_attn.k_norm")?))
                        }
                        Architecture::Llama => None,
                    },
                    o: weight("self_attn.o_proj")?,
                    post_norm: weight("post_attention_layernorm")?,
                    gate: weight("mlp.gate_proj")?,
                    up: weight("mlp.up_proj")?,
                    down: weight("mlp.down_proj")?,
                    cache: None,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let embedding = get("model.embed_tokens.weight")?;
        let device = embedding.device().clone();
        let rotary = transformer.rotary();
        let table =
            |values: &[f32]| Tensor::from_slice(values, (rotary.positions(), config.head_dim / 2), &device);
        Ok(Self {
            blocks,
            norm: get("model.norm.weight")?,
            head: get(transformer.head_name())?,
            cos: table(rotary.cos())?,
            sin: table(rotary.sin())?,
            embedding,
            config,
            device,
            length: 0,
        })
    }

    /// Tokens in the cache.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Longest context.
    pub fn capacity(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.cache = None);
        self.length = 0;
    }

    /// Reads `ids` after what was read before, and returns the last one's logits, one a vocabulary entry.
    ///
    /// # Errors
    /// When there are none, or they do not fit into the context, or an id is beyond the vocabulary.
    pub fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let vocabulary = self.config.vocab_size;
        if ids.is_empty() || self.length + ids.len() > self.capacity() {
            return Err(ModelError::config(
                format!("{} tokens after {} in a context of {}", ids.len(), self.length, self.capacity()),
                "give at least one token, and no more than max_position_embeddings",
            ));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(ModelError::new(
                "TOKENIZER_MISMATCH",
                format!("token id {id} is beyond the model's vocabulary of {vocabulary}"),
                "use the tokenizer that the model was trained with",
            ));
        }
        let logits = self.run(ids);
        // A failure in the middle would leave blocks of different lengths.
        if logits.is_err() {
            self.clear();
        }
        Ok(logits?)
    }

    fn run(&mut self, ids: &[u32]) -> candle_core::Result<Vec<f32>> {
        let (count, eps) = (ids.len(), self.config.rms_norm_eps as f32);
        let cos = self.cos.narrow(0, self.length, count)?;
        let sin = self.sin.narrow(0, self.length, count)?;
        let mask = match count {
            1 => None,
            _ => Some(causal_mask(count, self.length, &self.device)?),
        };
        // x is [T, C]: one sequence.
        let mut x = self.embedding.index_select(&Tensor::new(ids, &self.device)?, 0)?;
        for block in &mut self.blocks {
            let normed = ops::rms_norm(&x, &block.input_norm, eps)?;
            let mixed = block.attend(&normed, &self.config, (&cos, &sin), mask.as_ref())?;
            x = (x + mixed)?;
            let normed = ops::rms_norm(&x, &block.post_norm, eps)?;
            let gate = normed.matmul(&block.gate.t()?)?.silu()?;
            x = (x + (gate * normed.matmul(&block.up.t()?)?)?.matmul(&block.down.t()?)?)?;
        }
        let last = ops::rms_norm(&x.narrow(0, count - 1, 1)?, &self.norm, eps)?;
        self.length += count;
        last.matmul(&self.head.t()?)?.flatten_all()?.to_vec1()
    }
}

impl Block {
    fn attend(
        &mut self,
        x_tc: &Tensor,
        config: &ModelConfig,
        (cos, sin): (&Tensor, &Tensor),
        mask: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let (count, head_dim) = (x_tc.dim(0)?, config.head_dim);
        let (heads, groups) = (config.num_attention_heads, config.num_key_value_heads);
        let eps = config.rms_norm_eps as f32;
        // [1, heads, T, D]
        let project = |weight: &Tensor, heads: usize, norm: Option<&Tensor>| -> candle_core::Result<Tensor> {
            let x = x_tc.matmul(&weight.t()?)?.reshape((1, count, heads, head_dim))?;
            let x = match norm {
                Some(norm) => ops::rms_norm(&x, norm, eps)?,
                None => x,
            };
            x.transpose(1, 2)?.contiguous()
        };
        let norms = self.qk_norm.as_ref();
        let q = rotary_emb::rope(&project(&self.q, heads, norms.map(|norms| &norms.0))?, cos, sin)?;
        let k = rotary_emb::rope(&project(&self.k, groups, norms.map(|norms| &norms.1))?, cos, sin)?;
        let v = project(&self.v, groups, None)?;
        let (k, v) = match self.cache.take() {
            Some((before_k, before_v)) => {
                (Tensor::cat(&[&before_k, &k], 2)?, Tensor::cat(&[&before_v, &v], 2)?)
            }
            None => (k, v),
        };
        // Query heads of a group lie behind each other, so a group is one product without repeating keys.
        let q = q.reshape((1, groups, heads / groups * count, head_dim))?;
        let scores = (q.matmul(&k.t()?)? / (head_dim as f64).sqrt())?;
        let total = k.dim(2)?;
        let scores = match mask {
            Some(mask) => scores
                .reshape((groups, heads / groups, count, total))?
                .broadcast_add(mask)?
                .reshape((1, groups, heads / groups * count, total))?,
            None => scores,
        };
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&v)?;
        self.cache = Some((k, v));
        let mixed =
            mixed.reshape((heads, count, head_dim))?.transpose(0, 1)?.reshape((count, heads * head_dim))?;
        mixed.matmul(&self.o.t()?)
    }
}

/// 0 where query t, at position before + t, may look, −∞ beyond: `[count, before + count]`.
fn causal_mask(count: usize, before: usize, device: &Device) -> candle_core::Result<Tensor> {
    let total = before + count;
    let values: Vec<f32> = (0..count)
        .flat_map(|t| (0..total).map(move |s| if s <= before + t { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    Tensor::from_vec(values, (count, total), device)
}
