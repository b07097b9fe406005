//! Cached decoding against the full forward pass, and what the generator promises.

use candle_core::{Device, Tensor};
use candlewick_model::{
    Architecture, Decoder, Generator, GeneratorOptions, ModelConfig, Random, Transformer,
};

fn model(architecture: Architecture, key_value_heads: usize, context: usize) -> Transformer {
    let config = ModelConfig {
        architecture,
        hidden_size: 20,
        intermediate_size: 28,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: key_value_heads,
        head_dim: 6,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        vocab_size: 64,
        max_position_embeddings: context,
        bos_token_id: None,
        eos_token_id: None,
    };
    let model = Transformer::new(config, 3, &Device::Cpu).unwrap();
    for parameter in model.parameters().iter().filter(|parameter| parameter.spec.decay) {
        // Fresh weights give nearly equal logits; larger ones make every difference show.
        let larger = parameter.tensor.affine(15.0, 0.0).unwrap();
        model.parameters().set(&parameter.spec.name, &larger).unwrap();
    }
    model
}

fn ids(count: usize) -> Vec<u32> {
    let mut random = Random::stream(1, "ids");
    (0..count).map(|_| (random.bits() % 60) as u32).collect()
}

fn full_logits(model: &Transformer, ids: &[u32]) -> Vec<f32> {
    let logits = model.forward(&Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap()).unwrap();
    logits
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .split_off((ids.len() - 1) * model.config().vocab_size)
}

fn greedy(vocabulary: usize) -> GeneratorOptions {
    GeneratorOptions { temperature: 0.0, top_k: None, top_p: None, seed: 0, vocabulary }
}

#[test]
fn cached_decoding_equals_the_full_forward_pass() {
    for architecture in [Architecture::Qwen3, Architecture::Llama] {
        for key_value_heads in [1, 2, 4] {
            let model = model(architecture, key_value_heads, 40);
            let ids = ids(40);
            for chunk in [1, 3, 7, 40] {
                let mut decoder = Decoder::new(&model).unwrap();
                let mut read = 0;
                for part in ids.chunks(chunk) {
                    let logits = decoder.read(part).unwrap();
                    read += part.len();
                    let expected = full_logits(&model, &ids[..read]);
                    let difference =
                        logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(difference < 1e-4, "{difference:e} after {read} by {chunk}");
                }
                assert_eq!(decoder.length(), 40);
                assert!(decoder.read(&[0]).is_err(), "the context is full");
            }
        }
    }
}

#[test]
fn a_full_context_drops_its_older_half_and_goes_on() {
    let model = model(Architecture::Qwen3, 2, 16);
    let prompt = ids(5);
    let mut generator = Generator::new(&model, &prompt, greedy(60)).unwrap();
    let mut context = prompt;
    for _ in 0..60 {
        if context.len() > 16 {
            context.drain(..context.len() - 8);
        }
        let logits = full_logits(&model, &context);
        let expected =
            (0..60).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap() as u32;
        assert_eq!(generator.next_id(), Ok(expected));
        context.push(expected);
    }
}

#[test]
fn of_a_prompt_longer_than_the_context_the_end_is_used() {
    let model = model(Architecture::Llama, 2, 16);
    let prompt = ids(50);
    let next = |prompt: &[u32]| Generator::new(&model, prompt, greedy(60)).unwrap().next_id();
    assert_eq!(next(&prompt), next(&prompt[34..]));
}

#[test]
fn a_seed_repeats_a_text_and_another_does_not() {
    let model = model(Architecture::Qwen3, 2, 64);
    let text = |seed| -> Vec<u32> {
        let options =
            GeneratorOptions { temperature: 1.0, top_k: Some(40), top_p: Some(0.95), seed, vocabulary: 60 };
        let mut generator = Generator::new(&model, &ids(3), options).unwrap();
        (0..30).map(|_| generator.next_id().unwrap()).collect()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    assert!(text(3).iter().all(|&id| id < 60));
}

#[test]
fn prompts_that_cannot_be_continued_are_refused() {
    let model = model(Architecture::Llama, 2, 16);
    let refused = |prompt: &[u32]| Generator::new(&model, prompt, greedy(60)).unwrap_err();
    assert_eq!(refused(&[]).code, "USAGE");
    assert_eq!(refused(&[64]).code, "TOKENIZER_MISMATCH");
}
