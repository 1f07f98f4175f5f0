#!/usr/bin/env bash
# Compiles the kernels for ARM64 and runs their tests in an emulator, as no test machine of ours has NEON.
#
# Exit status 75 says that Rust's library for that target, a cross compiler or the emulator cannot be had: nothing was
# run. Installs them as root; where they are installed, anybody may run this.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "check-neon: $*" >&2; }
target=aarch64-unknown-linux-gnu
packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    timeout 300 rustup target add "$target" >&2 || { say "SKIPPED: Rust's library for $target cannot be had"; exit 75; }
fi
if ! { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null; then
    { [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --yes \
        --no-install-recommends "${packages[@]}" >/dev/null; } || { say "SKIPPED: install ${packages[*]}"; exit 75; }
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# Debug assertions are on in this profile, and compiling is quick.
cargo test --target "$target" -p imgvec-vector --lib
# Of the index the kernels; whole indexes take minutes in an emulator.
cargo test --target "$target" -p imgvec-ann --lib -- arch fastscan int8
