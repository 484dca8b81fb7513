#!/usr/bin/env bash
# Loads Verify, then Identify, of a server on loopback with ghz, and prints ghz's own summaries.
#   benches/ghz/run.sh [--receipts N] [-- FLAGS OF GHZ]      for example: -- --concurrency 32 --duration 60s
# Needs `make model`, the Python environment of scripts/setup.sh, and Go if ghz is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly GHZ_VERSION=v0.120.0 # older ones refuse `optional` in proto3
readonly TOOLS="$PWD/target/tools"
export PATH="$TOOLS:$PATH"

if ! command -v ghz >/dev/null; then
  command -v go >/dev/null || { echo "ghz: install Go, or put ghz on the PATH (https://ghz.sh)" >&2; exit 1; }
  echo "ghz: installing $GHZ_VERSION into target/tools"
  GOBIN="$TOOLS" go install "github.com/bojand/ghz/cmd/ghz@$GHZ_VERSION"
fi
exec .venv/bin/python benches/ghz/load.py "$@"
