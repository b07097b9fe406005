/**
 * Opens, uses and closes corpora and trainers one after the other: `node --expose-gc leaks.mjs <options in JSON>`. Prints
 * what the process holds after each round, as a line of JSON.
 */
import { readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { HuggingFaceStreamingCorpus, ProcessStreamingCorpus, Trainer } from 'candlewick';

const { rounds, corpora, trainers, dataset, documents, config, folder } = JSON.parse(process.argv[2]);

async function openCorpus() {
  const corpus = new HuggingFaceStreamingCorpus(dataset);
  // Closed in the middle of its stream, as one is that is no longer wanted.
  for await (const text of corpus.stream()) if (text.length > 0) break;
  await corpus.close();
}

async function openTrainer(name) {
  const output = join(folder, name);
  const corpus = new ProcessStreamingCorpus(['cat', documents], { epochs: null });
  const trainer = await Trainer.create({ config, corpus, output });
  for await (const event of trainer.run()) if (event.type === 'step' && event.step === 2) trainer.stop();
  await trainer.close();
  await corpus.close();
  rmSync(output, { recursive: true });
}

function held() {
  globalThis.gc();
  const status = readFileSync('/proc/self/status', 'utf8');
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // The one that the list itself was read through.
      return [];
    }
  });
  return {
    descriptors: descriptors.length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(status)[1]),
    children: readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ').filter(Boolean)
      .length,
    megabytes: Number(/^RssAnon:\s+(\d+)/m.exec(status)[1]) / 1024,
    // Whatever would keep the process from ending by itself; its own output is a pipe.
    resources: process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap'),
  };
}

/** What is still held once what was closed has had its time to end: children are reaped, and threads join, on their own. */
async function settled() {
  const deadline = performance.now() + 5_000;
  let now = held();
  while ((now.children > 0 || now.resources.length > 0) && performance.now() < deadline) {
    await new Promise((resolve) => setImmediate(resolve));
    now = held();
  }
  return now;
}

for (let round = 0; round < rounds; round++) {
  for (let i = 0; i < corpora; i++) await openCorpus();
  for (let i = 0; i < trainers; i++) await openTrainer(`run-${round}-${i}`);
  process.stdout.write(`${JSON.stringify(await settled())}\n`);
}
