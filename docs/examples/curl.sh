#!/usr/bin/env bash
# Every path of the HTTP edge by curl: `make up` first, then `bash docs/examples/curl.sh`.
set -euo pipefail
edge=${PENSTOCK_EDGE:-http://127.0.0.1:7086}
key=${PENSTOCK_KEY:-psk-development}
model=${PENSTOCK_MODEL:-SmolLM2-135M-Instruct}

post() { # PATH BODY: send JSON, print the answer as it comes
  curl --silent --show-error --fail-with-body --no-buffer "$edge$1" \
    -H "authorization: Bearer $key" -H 'content-type: application/json' \
    -H 'x-penstock-run: example' -d "$2"
  echo
}

echo "# models"
curl --silent --show-error --fail-with-body "$edge/v1/models" -H "authorization: Bearer $key"
echo
turns='[{"role": "user", "content": "Where is Paris?"}]'
echo "# a chat completion"
post /v1/chat/completions \
  "{\"model\": \"$model\", \"max_completion_tokens\": 20, \"messages\": $turns}"
echo "# the same as events"
post /v1/chat/completions \
  "{\"model\": \"$model\", \"max_completion_tokens\": 20, \"stream\": true, \"messages\": $turns}"
echo "# a response"
post /v1/responses "{\"model\": \"$model\", \"max_output_tokens\": 20, \"input\": \"And Rome?\"}"
echo "# a message, as events"
post /v1/messages \
  "{\"model\": \"$model\", \"max_tokens\": 20, \"stream\": true, \"messages\": $turns}"
echo "# the tokens of a message"
post /v1/messages/count_tokens "{\"model\": \"$model\", \"messages\": $turns}"
echo "# embeddings"
post /v1/embeddings '{"model": "all-MiniLM-L6-v2", "input": ["a fox", "a river"]}'
echo "# documents in the order of a query"
post /v1/rerank \
  '{"model": "all-MiniLM-L6-v2", "query": "wild animals", "documents": ["a fox", "a river"]}'
echo "# the receipt of a call, by the id in its answer's header x-penstock-receipt"
receipt=$(curl --silent --fail --output /dev/null --dump-header - "$edge/v1/embeddings" \
  -H "authorization: Bearer $key" -H 'content-type: application/json' \
  -d '{"model": "all-MiniLM-L6-v2", "input": "a fox"}' |
  sed -n 's/^x-penstock-receipt: id=\([0-9a-f]*\).*/\1/p')
curl --silent --show-error --fail-with-body "$edge/v1/receipts/$receipt" -H "authorization: Bearer $key"
echo
