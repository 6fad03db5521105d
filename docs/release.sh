#!/usr/bin/env bash
# Builds the release binary, strips and compresses it, and prints its requirements.
#
#   docs/release.sh [--features LIST] [--glibc VERSION] [--out FOLDER] [--binary FILE]
#
#   --features LIST   extra cargo features, such as wgpu or wgpu,cuda
#   --glibc VERSION   link against this glibc with cargo-zigbuild (cargo install cargo-zigbuild; pip install ziglang)
#                     [default: this machine's; the required version is printed at the end]
#   --out FOLDER      output folder of the archive [default: dist]
#   --binary FILE     pack this binary instead of building one
#
# The archive contains the binary, the README, the licenses and gpu-proof.sh. Fails if it is larger than 40 MB.
set -euo pipefail
# Paths on the command line are relative to the caller's folder.
here="$PWD"
cd "$(dirname "$0")/.."

limit=$((40 * 1000 * 1000))
features="" glibc="" out="dist" binary=""
while [ $# -gt 0 ]; do
    case "$1" in
        --features) features="$2"; shift 2 ;;
        --glibc) glibc="$2"; shift 2 ;;
        --out) out="$(cd "$here" && realpath -m "$2")"; shift 2 ;;
        --binary) binary="$(cd "$here" && realpath "$2")"; shift 2 ;;
        *) echo "release.sh: unknown argument $1 (see the top of this file)" >&2; exit 2 ;;
    esac
done

target="$(uname -m)-unknown-linux-gnu"
if [ -z "$binary" ]; then
    folder="${CARGO_TARGET_DIR:-target}"
    if [ -n "$glibc" ]; then
        cargo zigbuild --release --locked --bin patchtui --target "$target.$glibc" ${features:+--features "$features"}
        binary="$folder/$target/release/patchtui"
    else
        cargo build --release --locked --bin patchtui ${features:+--features "$features"}
        binary="$folder/release/patchtui"
    fi
fi

version="$("$binary" --version | cut -d' ' -f2)"
name="patchtui-$version-$target${features:+-${features//,/-}}"
stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT
mkdir -p "$out" "$stage/$name"
cp "$binary" "$stage/$name/patchtui"
strip "$stage/$name/patchtui"
for file in README.md LICENSE LICENSE-MIT LICENSE-APACHE docs/gpu-proof.sh; do
    [ -e "$file" ] && cp "$file" "$stage/$name/"
done
# Reproducible: no user names, no times, a fixed order.
archive="$out/$name.tar.xz"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$stage" "$name" | xz -9e --threads=1 > "$archive.tmp"
mv "$archive.tmp" "$archive"
(cd "$out" && sha256sum "$name.tar.xz" > "$name.tar.xz.sha256")

size="$(stat --format=%s "$archive")"
stripped="$(stat --format=%s "$stage/$name/patchtui")"
needs="$(objdump --dynamic-syms "$stage/$name/patchtui" | grep --only-matching 'GLIBC_[0-9.]*' | sort --version-sort --unique | tail -1)"
libraries="$(objdump --private-headers "$stage/$name/patchtui" | awk '/NEEDED/ { printf "%s%s", separator, $2; separator = ", " }')"
echo "binary    $((stripped / 1000000)).$((stripped / 100000 % 10)) MB, stripped"
echo "archive   $archive: $((size / 1000000)).$((size / 100000 % 10)) MB (at most 40)"
echo "glibc     ${needs#GLIBC_} or later"
echo "libraries $libraries"
if [ "$size" -gt "$limit" ]; then
    echo "release.sh: the archive is larger than 40 MB" >&2
    exit 1
fi
