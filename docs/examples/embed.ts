// An embedding and its receipt, by generated stubs.
//
// In a folder of yours, where PROTOS names the protos/ of this repository:
//   npm install @grpc/grpc-js @bufbuild/buf @bufbuild/protobuf ts-proto tsx
//   npx buf generate $PROTOS --template '{"version":"v2","plugins":[{
//     "local":"node_modules/.bin/protoc-gen-ts_proto","out":"gen",
//     "opt":["outputServices=grpc-js","esModuleInterop=true"]}]}'
// Then `make up` here and `npx tsx embed.ts` there.
import { credentials, Metadata } from "@grpc/grpc-js";
import { EmbedRequest, RouterServiceClient } from "./gen/penstock/api/router/v1/router";

const address = process.env.PENSTOCK_ADDRESS ?? "127.0.0.1:7070";
const key = process.env.PENSTOCK_KEY ?? "psk-development";

const router = new RouterServiceClient(address, credentials.createInsecure());
const metadata = new Metadata();
metadata.set("authorization", `Bearer ${key}`);
const request = EmbedRequest.fromPartial({
  texts: ["where is my order"],
  options: { runId: "example", step: "1" },
});

router.embed(request, metadata, { deadline: Date.now() + 10_000 }, (error, answer) => {
  router.close();
  if (error) throw error;
  const { embeddings, receipt } = answer;
  const instance = receipt?.route?.instanceId || "the cache";
  const milliseconds = receipt?.totalMs.toFixed(1);
  const paid = receipt?.cost?.paidMicrousd ?? 0;
  console.log(`${embeddings[0].values.length} values from ${instance}`);
  console.log(`${milliseconds} ms, ${paid} micro-dollars, trace ${receipt?.traceId}`);
});
