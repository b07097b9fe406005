use crate::ModelConfig;
use std::{collections::HashMap, ops::Range};

/// Where each parameter lies in the one flat buffer that holds them all.
///
/// First everything that decays, in the order of [`ModelConfig::parameters`], then the norms: so decay is a prefix, and
/// `q_proj`, `k_proj`, `v_proj` of a block lie behind each other, as do `gate_proj` and `up_proj`, and each group is one
/// matrix. There are no gaps. With widths that are multiples of 8, every parameter begins at a multiple of 8 values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatLayout {
    ranges: Vec<Range<usize>>,
    by_name: HashMap<String, usize>,
    decayed: usize,
    len: usize,
}

impl FlatLayout {
    /// The layout of a model's parameters.
    pub fn new(config: &ModelConfig) -> Self {
        let specs = config.parameters();
        let mut ranges = vec![0..0; specs.len()];
        let (mut len, mut decayed) = (0, 0);
        for decays in [true, false] {
            for (spec, range) in specs.iter().zip(&mut ranges).filter(|(spec, _)| spec.decay == decays) {
                *range = len..len + spec.len();
                len = range.end;
            }
            if decays {
                decayed = len;
            }
        }
        let by_name = specs.into_iter().enumerate().map(|(at, spec)| (spec.name, at)).collect();
        Self { ranges, by_name, decayed, len }
    }

    /// Values of all parameters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; never so in a valid configuration.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first so many values decay, the others do not.
    pub fn decayed(&self) -> usize {
        self.decayed
    }

    /// Where each parameter lies, in the order of [`ModelConfig::parameters`].
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Where the parameter called `name` lies.
    ///
    /// # Panics
    /// When the model has no such parameter.
    pub fn range(&self, name: &str) -> Range<usize> {
        let at = self.by_name.get(name);
        self.ranges[*at.unwrap_or_else(|| panic!("no parameter is called {name}"))].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    #[test]
    fn everything_has_its_place_without_gaps_and_groups_are_adjacent() {
        for architecture in [Architecture::Qwen3, Architecture::Llama] {
            for tie_word_embeddings in [true, false] {
                let config = ModelConfig {
                    architecture,
                    hidden_size: 12,
                    intermediate_size: 20,
                    num_hidden_layers: 2,
                    num_attention_heads: 4,
                    num_key_value_heads: 2,
                    head_dim: 6,
                    rope_theta: 10_000.0,
                    rms_norm_eps: 1e-6,
                    tie_word_embeddings,
                    vocab_size: 30,
                    max_position_embeddings: 8,
                    bos_token_id: None,
                    eos_token_id: None,
                };
                let layout = FlatLayout::new(&config);
                assert_eq!(layout.len() as u64, config.parameter_count().total);
                let specs = config.parameters();
                for (spec, range) in specs.iter().zip(layout.ranges()) {
                    assert_eq!((range.len(), &layout.range(&spec.name)), (spec.len(), range));
                    assert_eq!(range.end <= layout.decayed(), spec.decay, "{}", spec.name);
                }
                let mut sorted = layout.ranges().to_vec();
                sorted.sort_by_key(|range| range.start);
                assert!(sorted.windows(2).all(|pair| pair[0].end == pair[1].start));
                for (first, second) in [
                    ("self_attn.q_proj", "self_attn.k_proj"),
                    ("self_attn.k_proj", "self_attn.v_proj"),
                    ("mlp.gate_proj", "mlp.up_proj"),
                ] {
                    let range = |rest: &str| layout.range(&format!("model.layers.1.{rest}.weight"));
                    assert_eq!(range(first).end, range(second).start);
                }
            }
        }
    }
}
