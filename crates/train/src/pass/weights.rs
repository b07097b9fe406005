use candlewick_model::{Architecture, ModelError, Transformer};

/// Positions of the parameters in [`candlewick_model::Parameters`]' order.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) embedding: usize,
    pub(super) blocks: Vec<BlockIndex>,
    pub(super) norm: usize,
    pub(super) head: usize,
}

/// Positions of a block's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockIndex {
    pub(super) input_norm: usize,
    pub(super) q: usize,
    pub(super) k: usize,
    pub(super) v: usize,
    /// Norms of query and key heads, in Qwen3.
    pub(super) qk_norm: Option<(usize, usize)>,
    pub(super) o: usize,
    pub(super) post_norm: usize,
    pub(super) gate: usize,
    pub(super) up: usize,
    pub(super) down: usize,
}

impl Index {
    pub(super) fn new(transformer: &Transformer) -> Result<Self, ModelError> {
        let (config, parameters) = (transformer.config(), transformer.parameters());
        let block = |layer: usize| {
            let at = |rest: &str| parameters.position(&format!("model.layers.{layer}.{rest}.weight"));
            Ok(BlockIndex {
                input_norm: at("input_layernorm")?,
                q: at("self_attn.q_proj")?,
                k: at("self_attn.k_proj")?,
                v: at("self_attn.v_proj")?,
                qk_norm: match config.architecture {
                    Architecture::Qwen3 => Some((at("self_attn.q_norm")?, at("self_attn.k_norm")?)),
                    Architecture::Llama => None,
                },
                o: at("self_attn.o_proj")?,
                post_norm: at("post_attention_layernorm")?,
                gate: at("mlp.gate_proj")?,
                up: at("mlp.up_proj")?,
                down: at("mlp.down_proj")?,
            })
        };
        Ok(Self {
            embedding: parameters.position("model.embed_tokens.weight")?,
            blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_, ModelError>>()?,
            norm: parameters.position("model.norm.weight")?,
            head: parameters.position(transformer.head_name())?,
        })
    }
}
