// llama.cpp by its npm package node-llama-cpp, timed as `sluice bench` times itself: medians of
// prefill and decode, as JSON on stdout.
//
//   node llama_cpp.mjs MODEL.gguf THREADS PROMPT DECODE REPETITIONS
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [path, ...numbers] = process.argv.slice(2);
const [threads, prompt, decode, repetitions] = numbers.map(Number);

const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({
  contextSize: Math.max(prompt, decode) + 64, batchSize: 512, sequences: 1,
  threads: { ideal: threads, min: threads },
});
const sequence = context.getSequence();

// Any ids do, as long as the vocabulary has them: it is larger than the model is wide.
let state = 0x9e3779b97f4a7c15n;
const tokens = [];
for (let i = 0; i < Math.max(prompt, 1); ++i) {
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
  tokens.push(Number((state >> 33n) % BigInt(model.fileInsights.embeddingVectorSize)));
}

async function timed(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

async function write(count) {
  let done = 0;
  for await (const _ of sequence.evaluate([tokens[0]], { temperature: 0, yieldEogToken: true }))
    if (++done >= count) break;
}

await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 1));
const result = { prefill: [], decode: [] };
for (let i = 0; i < repetitions; ++i) {
  await sequence.clearHistory();
  result.prefill.push(await timed(() => sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, prompt))));
  await sequence.clearHistory();
  result.decode.push(await timed(() => write(decode)));
}
console.log(JSON.stringify(result));
process.exit(0);
