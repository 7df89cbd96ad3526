#!/usr/bin/env bash
# Produces sales with kcat, a client that knows nothing of Lamina: examples/produce.sh BROKERS [EVENTS]
set -euo pipefail
brokers=${1:?usage: examples/produce.sh BROKERS [EVENTS]}
events=${2:-1000}
command -v kcat >/dev/null || { echo "kcat is missing: install it (Debian: apt-get install kcat; macOS: brew install kcat)" >&2; exit 1; }
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
# The key is the product, as examples/sales/sales.sql says, and partitioned as Kafka's Java clients do: sales of one product
# stay in order.
for ((i = 1; i <= events; i++)); do
  product=$((RANDOM % 1000))
  printf '%d\t{"order_id": %d, "product_id": %d, "customer_id": "c%d", "store": %d, "quantity": %d, "amount": %d.%02d, "created_at": "%s"}\n' \
    $product "$i" $product $((RANDOM % 5000)) $((RANDOM % 40)) $((1 + RANDOM % 5)) $((RANDOM % 300)) $((RANDOM % 100)) "$now"
done | kcat -P -b "$brokers" -t sales -K $'\t' -X topic.partitioner=murmur2_random
