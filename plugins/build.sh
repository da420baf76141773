#!/usr/bin/env bash
# Builds the example plugins from source and makes components of them. Quiet, and a matter of milliseconds, when nothing changed.
#
# Output: ${HEYUAN_CACHE:-$HOME/.cache/heyuan}/plugins/{home-upgrader,member-day,hostile-tagger,hostile-rule}.wasm and the
# program native-baseline, which runs the same sources natively for the bench.
#
# Toolchain: rustup's wasm32-unknown-unknown where it is installed, else Debian's rustc-web, rust-web-src and lld-22.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out="${HEYUAN_CACHE:-$HOME/.cache/heyuan}/plugins"
plugins=(home-upgrader member-day hostile-tagger hostile-rule)
target=wasm32-unknown-unknown
mkdir -p "$out"

# Test runs may start together; the second waits and finds everything fresh.
exec 9>"$out/.lock"
flock 9

debian_rustc=/usr/bin/rustc
debian_source=/usr/lib/rustlib/src/rust/library
cd "$here/examples"
if compgen -G "$(rustc --print target-libdir --target $target 2>/dev/null || true)/libstd-*.rlib" >/dev/null; then
    toolchain=$(rustc --version)
    route=rustup
elif [[ -x $debian_rustc && -d $debian_source ]] && command -v wasm-ld-22 >/dev/null; then
    toolchain=$($debian_rustc --version)
    route=debian
else
    echo "plugins need a Rust toolchain for $target. Either:" >&2
    echo "  rustup target add $target" >&2
    echo "  apt-get install --no-install-recommends rustc-web rust-web-src lld-22" >&2
    exit 1
fi

# By content and never by time, so that a fresh clone of the same sources builds nothing twice.
fingerprint=$(
    {
        echo "$toolchain"
        cd "$here"
        find wit sdk/rust examples build.sh -type f \
            \( -name '*.rs' -o -name '*.toml' -o -name '*.wit' -o -name Cargo.lock -o -name build.sh \) \
            -not -path '*/target/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d' ' -f1
)
outputs=("$out/native-baseline")
for plugin in "${plugins[@]}"; do outputs+=("$out/$plugin.wasm"); done
fresh=yes
[[ "$(cat "$out/.fingerprint" 2>/dev/null || true)" == "$fingerprint" ]] || fresh=no
for output in "${outputs[@]}"; do [[ -s $output ]] || fresh=no; done
[[ $fresh == no ]] || exit 0

echo "building the example plugins ($route, a minute when cold)" >&2
# The caller's flags and folders are meant for another workspace.
unset CARGO_TARGET_DIR RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
target_dir="$out/target"

(
    cd "$here/sdk/rust"
    cargo build --quiet --release --locked --package heyuan-componentize --target-dir "$target_dir/tools"
)

# A MiB from the start: growing memory later is a system call of the host in every call. A quarter of a MiB of stack is plenty
# for rules and keeps the pages together. SIMD is deterministic; its relaxed sibling, which isn't, stays off.
flags="-Ctarget-feature=+simd128 -Clink-arg=--initial-memory=1048576 -Clink-arg=-zstack-size=262144"
packages=()
for plugin in "${plugins[@]}"; do packages+=(--package "$plugin"); done
build=(cargo build --quiet --release --locked --target $target --target-dir "$target_dir/$route" "${packages[@]}")
if [[ $route == rustup ]]; then
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags" "${build[@]}"
else
    RUSTC=$debian_rustc RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-22 \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags" \
        "${build[@]}" -Zbuild-std=std,panic_abort
fi
for plugin in "${plugins[@]}"; do
    "$target_dir/tools/release/heyuan-componentize" \
        "$target_dir/$route/$target/release/${plugin//-/_}.wasm" "$out/$plugin.wasm"
done

cargo build --quiet --release --locked --package native-baseline --target-dir "$target_dir/native"
install "$target_dir/native/release/native-baseline" "$out/native-baseline"

echo "$fingerprint" >"$out/.fingerprint"
