use crate::{ModelError, Random};

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest tokens; `None` for all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have at least this probability; `None` for all.
    pub top_p: Option<f64>,
    /// Same seed, same text.
    pub seed: u64,
    /// Tokens that may be drawn are those below: the tokenizer's size, which the model's vocabulary pads.
    pub vocabulary: usize,
}

/// Draws tokens from logits.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
}

impl Sampler {
    /// A sampler at the start of its random stream.
    ///
    /// # Errors
    /// `USAGE` for a negative temperature, a top-k of 0, a top-p outside (0, 1], or an empty vocabulary.
    pub fn new(options: SamplerOptions) -> Result<Self, ModelError> {
        let usage = |message: String, hint: &str| Err(ModelError::new("USAGE", message, hint));
        if !(options.temperature.is_finite() && options.temperature >= 0.0) {
            return usage(
                format!("the temperature is {}", options.temperature),
                "use 0 for greedy, about 0.8 for text",
            );
        }
        if options.top_k == Some(0) {
            return usage("top-k is 0".into(), "use 1 or more, or leave it out for all tokens");
        }
        if let Some(p) = options.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return usage(format!("top-p is {p}"), "use a share above 0 and up to 1");
        }
        if options.vocabulary == 0 {
            return usage(
                "the vocabulary is empty".into(),
                "use the tokenizer that the model was trained with",
            );
        }
        let random = Random::stream(options.seed, "sampler");
        Ok(Self { options, random })
    }

    /// The next token for `logits`. One random number is used a call, whatever the options.
    ///
    /// # Errors
    /// `DIVERGED` when a logit is not a number.
    pub fn draw(&mut self, logits: &[f32]) -> Result<u32, ModelError> {
        let logits = &logits[..logits.len().min(self.options.vocabulary)];
        let uniform = self.random.uniform();
        if logits.is_empty() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(ModelError::new(
                "DIVERGED",
                "the model's output is not a number",
                "use an older checkpoint, or train again with a lower optimizer.lr",
            ));
        }
        // Likeliest first; equal logits by id, so that the order is total.
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b));
        if self.options.temperature == 0.0 {
            return Ok(order.into_iter().min_by(likelier).unwrap_or(0));
        }
        if let Some(k) = self.options.top_k
            && k < order.len()
        {
            order.select_nth_unstable_by(k, likelier);
            order.truncate(k);
        }
        order.sort_unstable_by(likelier);
        let largest = f64::from(logits[order[0] as usize]);
        let mut weights: Vec<f64> = order
            .iter()
            .map(|&id| ((f64::from(logits[id as usize]) - largest) / self.options.temperature).exp())
            .collect();
        if let Some(p) = self.options.top_p {
            let enough = p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().take_while(|&&weight| {
                let wanted = sum < enough;
                sum += weight;
                wanted
            });
            let kept = kept.count().max(1);
            weights.truncate(kept);
        }
        let mut left = uniform * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return Ok(*id);
            }
        }
        Ok(order[weights.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl FnOnce(&mut SamplerOptions)) -> Sampler {
        let mut options =
            SamplerOptions { temperature: 1.0, top_k: None, top_p: None, seed: 3, vocabulary: usize::MAX };
        change(&mut options);
        Sampler::new(options).unwrap()
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_lowest_id_of_equals() {
        let mut greedy = sampler(|options| options.temperature = 0.0);
        assert_eq!(greedy.draw(&[0.0, 3.0, 1.0, 3.0]), Ok(1));
    }

    #[test]
    fn ids_beyond_the_tokenizer_are_never_drawn() {
        for temperature in [0.0, 1.0, 100.0] {
            let mut bounded = sampler(|options| (options.temperature, options.vocabulary) = (temperature, 3));
            for _ in 0..500 {
                assert!(bounded.draw(&[0.0, 1.0, 2.0, 50.0, 60.0]).unwrap() < 3);
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut plain = sampler(|_| ());
        let logits = [0.5f64, 0.3, 0.2].map(|p| p.ln() as f32);
        let mut counts = [0; 3];
        (0..30_000).for_each(|_| counts[plain.draw(&logits).unwrap() as usize] += 1);
        for (count, p) in counts.into_iter().zip([0.5, 0.3, 0.2]) {
            assert!((f64::from(count) / 30_000.0 - p).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest() {
        let logits = [0.1f64, 0.5, 0.15, 0.25].map(|p| p.ln() as f32);
        let drawn = |mut sampler: Sampler| {
            let mut seen: Vec<u32> = (0..2_000).map(|_| sampler.draw(&logits).unwrap()).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(drawn(sampler(|options| options.top_k = Some(2))), [1, 3]);
        assert_eq!(drawn(sampler(|options| options.top_p = Some(0.7))), [1, 3]);
        assert_eq!(drawn(sampler(|options| options.top_p = Some(0.1))), [1]);
        assert_eq!(drawn(sampler(|options| options.top_p = Some(1.0))), [0, 1, 2, 3]);
    }

    #[test]
    fn bad_options_are_refused_with_a_hint() {
        let good = SamplerOptions { temperature: 1.0, top_k: None, top_p: None, seed: 0, vocabulary: 5 };
        for bad in [
            SamplerOptions { temperature: -1.0, ..good.clone() },
            SamplerOptions { top_k: Some(0), ..good.clone() },
            SamplerOptions { top_p: Some(1.5), ..good.clone() },
        ] {
            let error = Sampler::new(bad).unwrap_err();
            assert!(error.code == "USAGE" && !error.hint.is_empty());
        }
        assert_eq!(Sampler::new(good).unwrap().draw(&[f32::NAN, 0.0]).unwrap_err().code, "DIVERGED");
    }
}
