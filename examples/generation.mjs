// Continues a text with the model of `training.mjs`, and writes it as a directory that transformers loads.
import { exportModel, Model } from 'candlewick';

const model = await Model.load('run', { device: 'cpu' });
for await (const piece of model.generate('def ', { maxTokens: 20, temperature: 0.8, topK: 50, seed: 1 }))
  process.stdout.write(piece);
process.stdout.write('\n');
await model.close();

const { parameters } = await exportModel('run', 'model', { dtype: 'bf16' });
console.log(`model/ has ${parameters} parameters`);
