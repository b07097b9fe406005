use crate::{Decoder, ModelError, Sampler, SamplerOptions, Transformer};

/// How a text is continued. The same as [`SamplerOptions`].
pub type GeneratorOptions = SamplerOptions;

/// Continues a prompt, token by token and without end.
///
/// When the context is full, its older half is dropped and the rest is read anew.
#[derive(Debug)]
pub struct Generator {
    decoder: Decoder,
    sampler: Sampler,
    /// What the next logits depend on.
    context: Vec<u32>,
    /// How many of them the decoder has read.
    read: usize,
}

impl Generator {
    /// A generator that continues `prompt`. Of a prompt longer than the context its end is used.
    ///
    /// # Errors
    /// `USAGE` for an empty prompt or bad options, `TOKENIZER_MISMATCH` for an id beyond the model's vocabulary.
    pub fn new(
        transformer: &Transformer,
        prompt: &[u32],
        options: GeneratorOptions,
    ) -> Result<Self, ModelError> {
        check_prompt(prompt, transformer.config().vocab_size)?;
        let decoder = Decoder::new(transformer)?;
        let first = prompt.len().saturating_sub(decoder.capacity());
        Ok(Self { decoder, sampler: Sampler::new(options)?, context: prompt[first..].to_vec(), read: 0 })
    }

    /// The next token of the text.
    ///
    /// # Errors
    /// `DIVERGED` when the model's output is not a number.
    pub fn next_id(&mut self) -> Result<u32, ModelError> {
        if self.context.len() > self.decoder.capacity() {
            // Keys were made at their old positions, so the kept half is read from the start.
            let kept = (self.decoder.capacity() / 2).max(1);
            self.context.drain(..self.context.len() - kept);
            self.decoder.clear();
            self.read = 0;
        }
        let logits = self.decoder.read(&self.context[self.read..])?;
        self.read = self.context.len();
        let id = self.sampler.draw(&logits)?;
        self.context.push(id);
        Ok(id)
    }
}

/// Whether a prompt can be continued.
///
/// # Errors
/// `USAGE` for an empty one, `TOKENIZER_MISMATCH` for an id beyond the model's vocabulary.
pub fn check_prompt(prompt: &[u32], vocabulary: usize) -> Result<(), ModelError> {
    if prompt.is_empty() {
        return Err(ModelError::new(
            "USAGE",
            "the prompt is empty",
            "give some text, or the end-of-text token",
        ));
    }
    if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(ModelError::new(
            "TOKENIZER_MISMATCH",
            format!("token id {id} of the prompt is beyond the model's vocabulary of {vocabulary}"),
            "use the tokenizer that the model was trained with",
        ));
    }
    Ok(())
}
