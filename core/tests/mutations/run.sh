#!/usr/bin/env bash
# Does the interleaving model notice a fault? Each patch here puts one into a copy of the tree, and
# the model has to fail on it. Its first lines say what is wrong then.
#
#   core/tests/mutations/run.sh            all of them: about 12 minutes on two cores
#   core/tests/mutations/run.sh NAME ...   some
#
# Fails if the model passes with a patch, if it fails without one, and if a patch does not apply any
# more: then the code has changed, and the patch has to follow.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$root/target/mutations
tree=$work/tree
export CARGO_TARGET_DIR=$work/build

rm -rf "$tree"
mkdir -p "$tree"
cd "$root"
git ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- --create |
    # Newer than what an earlier run has built of a patched tree.
    tar --extract --touch --directory="$tree"
# A repository of its own: git would look for the paths of a patch in this one.
git init --quiet "$tree"
cd "$tree"

# Runs the model until the first broken promise, and prints that.
model() {
    local binary log=$work/log pid
    binary=$(cargo test --quiet --package callback-guard-core --test model --no-run --message-format=json 2>"$work/build.log" |
        sed -n 's/.*"executable":"\([^"]*\/model-[^"]*\)".*/\1/p')
    [ -n "$binary" ] || { cat "$work/build.log" >&2; return 2; }
    : >"$log"
    "$binary" --nocapture >>"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && ! grep --quiet '^broken: ' "$log"; do sleep 0.2; done
    if grep --max-count=1 '^broken: ' "$log"; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        return 0
    fi
    # It has ended by itself: well, or by a failure of another kind.
    wait "$pid" || { sed -n '/panicked at/,+1p' "$log"; return 0; }
}

found=$(model)
[ -z "$found" ] || { echo "without a patch: $found" >&2; exit 1; }

if [ $# -eq 0 ]; then
    set -- "$here"/*.patch
    set -- "${@##*/}"
    set -- "${@%.patch}"
fi
missed=0
for name; do
    patch=$here/$name.patch
    if ! git apply "$patch"; then
        echo "$name: does not apply" >&2
        missed=1
        continue
    fi
    found=$(model)
    git apply --reverse "$patch"
    if [ -n "$found" ]; then
        printf '%-50s %s\n' "$name" "$found"
    else
        echo "$name: NOT NOTICED" >&2
        missed=1
    fi
done
exit "$missed"
