use serde::{Deserialize, Serialize};

/// What happens when a source has been read as often as it may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// It begins again.
    Repeat,
    /// The whole stream ends.
    #[default]
    Stop,
    /// The others go on without it.
    Drop,
}

/// Chooses the source of the next document: the one with the largest deficit, weight · total − consumed, ties to the
/// lowest index. Tokens (end-of-text included) are counted, not documents, so weights are shares of tokens.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    weights: Vec<f64>,
    consumed: Vec<u64>,
    dropped: Vec<bool>,
}

impl Mix {
    pub(crate) fn new(weights: Vec<f64>) -> Self {
        let count = weights.len();
        Self { weights, consumed: vec![0; count], dropped: vec![false; count] }
    }

    /// Goes on from the counts of an earlier stream.
    pub(crate) fn restore(&mut self, consumed: Vec<u64>, dropped: Vec<bool>) {
        self.consumed = consumed;
        self.dropped = dropped;
    }

    pub(crate) fn consumed(&self) -> &[u64] {
        &self.consumed
    }

    pub(crate) fn dropped(&self) -> &[bool] {
        &self.dropped
    }

    /// The source of the next document, or none when all have dropped out.
    pub(crate) fn next(&self) -> Option<usize> {
        let total: u64 = self.consumed.iter().sum();
        let active = |i: &usize| !self.dropped[*i];
        let weights: f64 = (0..self.weights.len()).filter(active).map(|i| self.weights[i]).sum();
        // Times the sum of the weights: with whole weights everything stays whole, so that a tie is one.
        let deficit = |i: usize| self.weights[i] * total as f64 - self.consumed[i] as f64 * weights;
        (0..self.weights.len())
            .filter(active)
            .reduce(|best, i| if deficit(i) > deficit(best) { i } else { best })
    }

    pub(crate) fn consume(&mut self, source: usize, tokens: u64) {
        self.consumed[source] += tokens;
    }

    /// Takes a source out; the counts of the others restart, so that nobody has to make up for its share.
    pub(crate) fn drop_source(&mut self, source: usize) {
        self.dropped[source] = true;
        self.consumed.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_source_is_ahead_of_its_share_by_more_than_one_document(
            weights in proptest::collection::vec(0.05_f64..1.0, 2..6),
            lengths in proptest::collection::vec(1_u64..2000, 1..400),
        ) {
            let mut mix = Mix::new(weights.clone());
            let sum: f64 = weights.iter().sum();
            for &length in &lengths {
                let source = mix.next().unwrap();
                mix.consume(source, length);
                let total: u64 = mix.consumed().iter().sum();
                for (i, weight) in weights.iter().enumerate() {
                    let ahead = mix.consumed()[i] as f64 - weight / sum * total as f64;
                    prop_assert!(ahead <= *lengths.iter().max().unwrap() as f64);
                }
            }
        }
    }

    #[test]
    fn equal_weights_take_turns_and_ties_go_to_the_lowest_index() {
        let mut mix = Mix::new(vec![1.0, 1.0]);
        let order: Vec<_> = (0..4)
            .map(|_| {
                let s = mix.next().unwrap();
                mix.consume(s, 5);
                s
            })
            .collect();
        assert_eq!(order, [0, 1, 0, 1]);
    }

    #[test]
    fn counts_restart_when_a_source_drops_out() {
        let mut mix = Mix::new(vec![1.0, 1.0, 2.0]);
        mix.consume(0, 100);
        mix.drop_source(2);
        assert_eq!(mix.next(), Some(0));
        mix.drop_source(0);
        mix.drop_source(1);
        assert_eq!(mix.next(), None);
    }
}
