//! Texts continued by the step's own forward pass, in its buffers and with its weights.
//!
//! The whole text is read again for each token. On a GPU that takes milliseconds, while a copy of the weights for candle
//! would take memory that a run has sized its micro-batch to use.

use crate::{TrainError, backend::Backend, step::Step};
use candlewick_model::{ModelConfig, Sampler, SamplerOptions, check_prompt};

/// Texts are read in multiples of so many tokens, so that products have few shapes. What is behind the text changes
/// nothing: attention is causal.
const TOKENS: usize = 64;

/// A text that is being continued.
#[derive(Debug)]
pub(crate) struct Continuation {
    sampler: Sampler,
    context: Vec<u32>,
    capacity: usize,
    logits: Vec<f32>,
}

impl Continuation {
    /// Of a prompt longer than a sequence of the step its end is used.
    pub(crate) fn new(
        model: &ModelConfig,
        step: &Step,
        prompt: &[u32],
        options: SamplerOptions,
    ) -> Result<Self, TrainError> {
        check_prompt(prompt, model.vocab_size)?;
        let capacity = step.plan().shape.length;
        let first = prompt.len().saturating_sub(capacity);
        Ok(Self {
            sampler: Sampler::new(options)?,
            context: prompt[first..].to_vec(),
            capacity,
            logits: vec![0.0; model.vocab_size],
        })
    }

    /// The next token of the text.
    pub(crate) fn next_id(&mut self, step: &Step, backend: &mut dyn Backend) -> Result<u32, TrainError> {
        let Self { sampler, context, capacity, logits } = self;
        if context.len() > *capacity {
            let kept = (*capacity / 2).max(1);
            context.drain(..context.len() - kept);
        }
        read(step, backend, context, logits)?;
        let id = sampler.draw(logits)?;
        context.push(id);
        Ok(id)
    }
}

/// The logits behind a text, which is at most a sequence of the step.
pub(crate) fn read(
    step: &Step,
    backend: &mut dyn Backend,
    text: &mut Vec<u32>,
    logits: &mut [f32],
) -> Result<(), TrainError> {
    let tokens = text.len();
    text.resize(tokens.next_multiple_of(TOKENS).min(step.plan().shape.length), 0);
    let done = step.logits(backend, text, tokens - 1, logits);
    text.truncate(tokens);
    done
}
