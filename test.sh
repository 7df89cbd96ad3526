#!/usr/bin/env bash
# Formats, lints, documents and runs every test. Installs what they need (integration-tests/install.sh says what).
set -euo pipefail
cd "$(dirname "$0")"
step() { printf '\n== %s (%ds)\n' "$1" "$SECONDS"; }

step "what the tests need"
integration-tests/install.sh
step "format"
cargo fmt --all --check
step "lint"
cargo clippy --locked --workspace --all-targets -- -D warnings
step "metrics"
infra/check-metrics.sh
step "documents"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
step "tests"
cargo build --locked --workspace --bins --tests
cargo test --locked --workspace --no-fail-fast
step "infrastructure"
tasks=$(mktemp -d)
trap 'rm -rf "$tasks"' EXIT
LAMINA_TASKS_OUT="$tasks" infra/test.sh
step "what the task definitions pass is what the programs read"
infra/check-settings.sh "$tasks" "${CARGO_TARGET_DIR:-target}/debug"
step "done"
