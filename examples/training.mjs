// Trains a small model, saves when it likes, stops, and goes on where it stopped.
import { HuggingFaceStreamingCorpus, Trainer } from 'candlewick';

const config = {
  tokenizer: { train: { max_samples: 200, vocab_size: 500 } },
  model: {
    architecture: 'qwen3',
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
  },
  data: { dataset: 'sample', sequence_length: 64, shuffle_buffer_size: 200 },
  training: { global_batch_size: 4, max_steps: 20 },
  optimizer: { lr: 1e-2 },
  evaluation: { documents: 4, every_steps: 10 },
};
const signal = AbortSignal.timeout(600_000); // saves and stops, as stop() does

async function train(until) {
  const corpus = new HuggingFaceStreamingCorpus('sample');
  const trainer = await Trainer.create({ config, corpus, output: 'run', resume: 'auto', signal });
  try {
    for await (const event of trainer.run()) {
      if (event.type === 'step' && event.step % 5 === 0)
        console.log(`step ${event.step}: loss ${event.loss.toFixed(3)}`);
      if (event.type === 'eval') console.log(`${event.bits_per_byte.toFixed(3)} bits a byte`);
      if (event.type === 'step' && event.step === 3) console.log(`saved ${await trainer.checkpoint()}`);
      if (event.type === 'step' && event.step === until) trainer.stop();
      if (event.type === 'done') console.log(`${event.reason} at step ${event.step}`);
    }
  } finally {
    await trainer.close();
    await corpus.close();
  }
}

await train(8);
await train(20);
