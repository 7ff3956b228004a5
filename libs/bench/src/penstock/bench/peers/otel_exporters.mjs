// Sends spans by Node's own OpenTelemetry exporters: node otel_exporters.mjs PROTOCOL ADDRESS SPANS
import { OTLPTraceExporter as GrpcExporter } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtoExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';

const [protocol, address, spans] = process.argv.slice(2);
const url = `http://${address}/v1/traces`;
const exporters = {
  grpc: () => new GrpcExporter({ url: `http://${address}` }),
  json: () => new JsonExporter({ url }),
  proto: () => new ProtoExporter({ url }),
};
const options = { exporter: exporters[protocol](), maxQueueSize: Number(spans) + 1 };
const processor = new BatchSpanProcessor(options);
const provider = new TracerProvider({ spanProcessors: [processor] });
const tracer = provider.getTracer('standards', '1');
for (let number = 0; number < Number(spans); number++) {
  const attributes = { number, text: 'ä 日本 😀', list: ['a', 'b'], share: 0.5 };
  tracer.startSpan('work', { attributes }).addEvent('half', { done: true }).end();
}
await provider.forceFlush();
await provider.shutdown();
