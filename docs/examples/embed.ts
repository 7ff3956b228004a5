// From the protos, loaded at run time: an embedding and its receipt. In a folder of yours: `npm install @grpc/grpc-js @grpc/proto-loader tsx`,
// then `make up` here and `PROTOS=/path/to/protos npx tsx embed.ts` there.
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

const protos = process.env.PROTOS ?? "protos";
const definition = loader.loadSync("penstock/api/router/v1/router.proto", { includeDirs: [protos], longs: Number, defaults: true });
const { RouterService } = (grpc.loadPackageDefinition(definition) as any).penstock.api.router.v1;

const router = new RouterService(process.env.PENSTOCK_ADDRESS ?? "127.0.0.1:7070", grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.PENSTOCK_KEY ?? "psk-development"}`);

router.Embed({ texts: ["where is my order"] }, metadata, { deadline: Date.now() + 10_000 }, (error: Error | null, answer: any) => {
  if (error) throw error;
  console.log(`${answer.embeddings[0].values.length} values; ${answer.receipt.totalMs} ms; trace ${answer.receipt.traceId}`);
  router.close();
});
