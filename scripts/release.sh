#!/usr/bin/env bash
# Builds archives for a release: the binary, manual pages, completions, licence and README, with a checksum each.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/release.sh [--dry-run] [--output FOLDER] [TARGET...]

Targets: x86_64-unknown-linux-gnu and aarch64-unknown-linux-gnu; both if none is given.

  --dry-run        say what would be built here and what is missing, and build nothing
  --output FOLDER  where archives go [default: dist]

A target other than this machine's needs its Rust standard library (rustup target add TARGET) and a C compiler for it, which
also links (Debian: gcc-aarch64-linux-gnu or gcc-x86-64-linux-gnu). What cannot be built is said, the rest is built, and the
exit code is 1. Binaries run where glibc is at least as new as on the machine that built them.
END
}

output=dist
dry_run=false
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dry-run) dry_run=true ;;
        --output) output=${2:?--output needs a folder}; shift ;;
        x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) targets+=("$1") ;;
        *) echo "error: '$1' is no option and no target of a release" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu)
mkdir -p "$(dirname "$output")"
output=$(realpath "$output")
cd "$(dirname "$0")/.."

version=$(sed --quiet 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
host=$(rustc --version --verbose | sed --quiet 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}

# The C compiler of a target, which links too.
compiler() {
    if [ "$1" = "$host" ]; then
        echo cc
    else
        echo "${1%%-*}-linux-gnu-gcc"
    fi
}

# What is missing to build a target here; nothing if it can be built.
missing() {
    local target=$1
    command -v "$(compiler "$target")" > /dev/null || echo "the C compiler and linker $(compiler "$target")"
    [ -d "$(rustc --print target-libdir --target "$target")" ] ||
        echo "the Rust standard library of $target: rustup target add $target"
}

# Builds a target; says where its binary is. This machine's own shares its build with the tests.
build() {
    local target=$1 upper
    if [ "$target" = "$host" ]; then
        cargo build --release --locked --workspace --bin transmla >&2
        echo "$built/release/transmla"
        return
    fi
    upper=$(echo "$target" | tr 'a-z-' 'A-Z_')
    env "CARGO_TARGET_${upper}_LINKER=$(compiler "$target")" "CC_${target//-/_}=$(compiler "$target")" \
        cargo build --release --locked --workspace --bin transmla --target "$target" >&2
    echo "$built/$target/release/transmla"
}

# Puts a binary and what goes with it into an archive. Manual pages and completions are the same everywhere, and written by the
# binary that runs here.
pack() {
    local target=$1 binary=$2 native=$3 folder name
    name=transmla-$version-$target
    folder=$(mktemp --directory)
    mkdir -p "$folder/$name/completions" "$output"
    install --mode=755 "$binary" "$folder/$name/transmla"
    if [ "$target" = "$host" ]; then strip "$folder/$name/transmla"; fi
    cp LICENSE README.md CHANGELOG.md SECURITY.md "$folder/$name"
    "$native" man --output "$folder/$name/man" > /dev/null
    for shell in bash zsh fish; do
        "$native" completions "$shell" > "$folder/$name/completions/transmla.$shell"
    done
    tar --create --gzip --file "$output/$name.tar.gz" --directory "$folder" --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$(git log -1 --format=%ct)" "$name"
    rm -r "$folder"
    (cd "$output" && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
    echo "$output/$name.tar.gz"
}

failed=0
native=
for target in "${targets[@]}"; do
    lacks=$(missing "$target")
    if [ -n "$lacks" ]; then
        echo "$target cannot be built here; missing:" >&2
        sed 's/^/  /' <<< "$lacks" >&2
        failed=1
        continue
    fi
    if $dry_run; then
        echo "$target: would be built with $(compiler "$target") into $output/transmla-$version-$target.tar.gz"
        continue
    fi
    # What runs here writes the manual, whatever is built.
    [ -n "$native" ] || native=$(build "$host")
    binary=$(build "$target")
    pack "$target" "$binary" "$native"
done
exit $failed
