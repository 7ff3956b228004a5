// An agent of Vercel's AI SDK that calls a tool, streamed.
//
// `make up` with a model that calls tools, and `npm install ai @ai-sdk/openai-compatible zod`; then
// `PENSTOCK_MODEL=MODEL node docs/examples/ai_sdk.mjs`.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const penstock = createOpenAICompatible({
  name: 'penstock',
  baseURL: `${process.env.PENSTOCK_EDGE ?? 'http://127.0.0.1:7086'}/v1`,
  apiKey: process.env.PENSTOCK_KEY ?? 'psk-development',
  headers: { 'x-penstock-run': 'example' },
  includeUsage: true,
});

const answer = streamText({
  model: penstock.chatModel(process.env.PENSTOCK_MODEL),
  prompt: "How is the weather in 'Paris'?",
  stopWhen: stepCountIs(5),
  tools: {
    weather: tool({
      description: 'The weather of a city.',
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `21 degrees in ${city}`,
    }),
  },
});
for await (const piece of answer.textStream) process.stdout.write(piece);
console.log(`\n${(await answer.totalUsage).totalTokens} tokens`);
