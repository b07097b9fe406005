/** A training program over the Node API: `node train-tiny.mjs <options in JSON>`. Prints each event as a line of JSON. */
import { writeSync } from 'node:fs';
import { ProcessStreamingCorpus, Trainer } from 'candlewick';

const { config, documents, output } = JSON.parse(process.argv[2]);
const say = (event) => writeSync(1, `${JSON.stringify(event)}\n`);
try {
  const corpus = new ProcessStreamingCorpus(['cat', documents], { epochs: null });
  const trainer = await Trainer.create({ config, corpus, output });
  for await (const event of trainer.run()) say(event);
  await trainer.close();
  await corpus.close();
} catch (error) {
  say({ type: 'error', code: error.code, message: error.message });
  process.exitCode = error.exitCode ?? 1;
}
