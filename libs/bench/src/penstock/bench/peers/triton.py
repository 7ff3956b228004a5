"""Triton serving an ONNX file by its Python backend, in the peers' environment.

Arguments: file, threads, three ports (gRPC, HTTP, metrics), execution provider, the runtime's
optimisers to disable. Triton may join requests of equal shape, as it does by default; onnxruntime
has as many threads as on the other sides. It ends with status 3 where the runtime cannot start the
provider.
"""

from __future__ import annotations

import sys
from typing import Any

NO_PROVIDER = 3


def main() -> None:
    """Serve until terminated."""
    import numpy as np
    import onnxruntime
    from pytriton.decorators import batch  # type: ignore[import-not-found]
    from pytriton.model_config import ModelConfig, Tensor  # type: ignore[import-not-found]
    from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

    path = sys.argv[1]
    threads, grpc_port, http_port, metrics_port = (int(value) for value in sys.argv[2:6])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=[sys.argv[6]], disabled_optimizers=sys.argv[7:]
    )
    if session.get_providers()[0] != sys.argv[6]:
        sys.exit(NO_PROVIDER)
    output = session.get_outputs()[0].name

    @batch  # type: ignore[untyped-decorator]
    def infer(**inputs: Any) -> dict[str, Any]:
        return {output: session.run([output], inputs)[0]}

    config = TritonConfig(grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[
                Tensor(name=node.name, dtype=np.int64, shape=(-1,)) for node in session.get_inputs()
            ],
            outputs=[Tensor(name=output, dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=32),
        )
        triton.serve()


if __name__ == "__main__":
    main()
