// Cases of the AI SDK against a running gateway: `node cases.mjs CASE WIRE MODEL` ends with status 0
// where the case holds. The wires are those of the SDK's own providers.

import assert from 'node:assert/strict';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const baseURL = `${process.env.PENSTOCK_EDGE}/v1`;
const apiKey = process.env.PENSTOCK_KEY;
const openai = createOpenAI({ baseURL, apiKey });
const compatible = createOpenAICompatible({
  name: 'penstock', baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true,
});
const anthropic = createAnthropic({ baseURL, apiKey });

const wires = {
  'openai-responses': (model) => openai.responses(model),
  'openai-chat': (model) => openai.chat(model),
  compatible: (model) => compatible.chatModel(model),
  anthropic: (model) => anthropic(model),
};

const weather = tool({
  description: 'the weather of some days',
  inputSchema: z.object({ days: z.number().int() }),
  execute: async ({ days }) => `rain on ${days} days`,
});
const maxRetries = 0;

const cases = {
  async text(model) {
    const made = await generateText({ model, prompt: 'hello', maxOutputTokens: 20, maxRetries });
    assert.ok(made.text);
    assert.ok(made.usage.outputTokens > 0);
  },
  async stream(model) {
    const made = streamText({ model, prompt: 'hello', maxOutputTokens: 20, maxRetries });
    let text = '';
    for await (const piece of made.textStream) text += piece;
    assert.ok(text);
    assert.equal(await made.text, text);
    assert.ok(['stop', 'length'].includes(await made.finishReason));
    assert.ok((await made.usage).outputTokens > 0);
  },
  async tool(model) {
    const made = await generateText({
      model, prompt: 'the weather for 3 days', tools: { weather }, stopWhen: stepCountIs(3), maxRetries,
    });
    assert.match(made.text, /rain on 3 days/);
    assert.equal(made.steps.length, 2);
  },
  async streamed_tool(model) {
    const made = streamText({
      model, prompt: 'the weather for 4 days', tools: { weather }, stopWhen: stepCountIs(3), maxRetries,
    });
    await made.consumeStream();
    assert.match(await made.text, /rain on 4 days/);
  },
  async form(model) {
    const schema = z.object({ legs: z.number().int() });
    const made = await generateText({
      model, prompt: 'with 8 legs', output: Output.object({ schema }), maxRetries,
    });
    assert.deepEqual(made.output, { legs: 8 });
  },
  async turns(model) {
    const messages = [
      { role: 'user', content: 'one' },
      { role: 'assistant', content: [{ type: 'text', text: 'yes?' }] },
      { role: 'user', content: [{ type: 'text', text: 'and two' }] },
    ];
    const made = await generateText({ model, system: 'be brief', messages, maxRetries });
    assert.equal(made.text, 'You said: and two.');
  },
  async failure(model) {
    await assert.rejects(
      generateText({ model, prompt: 'answer with status 429', maxRetries }),
      (error) => error.statusCode === 429 && error.isRetryable === true,
    );
  },
};

const [, , name, wire, model] = process.argv;
if (name === 'embeddings') {
  const encoders = { 'openai-chat': openai.embedding, compatible: compatible.embeddingModel };
  const encoder = encoders[wire](model);
  const made = await embedMany({ model: encoder, values: ['one', 'two'], maxRetries });
  assert.equal(made.embeddings.length, 2);
  assert.ok(made.embeddings[0].length > 1);
} else {
  await cases[name](wires[wire](model));
}
