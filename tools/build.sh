#!/usr/bin/env bash
# Builds the programs of a tool module into the user's cache, unless they are there, and prints where they are.
# Usage: tools/build.sh temporal | lint | test
# What it has to say while it works goes to standard error.
set -euo pipefail

module=$1
cd "$(dirname "$0")/$module"

if [ "$(uname)" = Darwin ]; then cache=$HOME/Library/Caches; else cache=${XDG_CACHE_HOME:-$HOME/.cache}; fi
cache=$cache/cura-ehr-sync/bin

if [ "$module" = temporal ]; then
  # internal/stack looks for the server under this very name.
  target=$cache/temporal-$(sed -n 's|^.*github.com/temporalio/cli \(v[^ ]*\).*$|\1|p' go.mod)
  what="the Temporal server"
else
  # A linter works for the Go release it was built with.
  target=$cache/$module-$({ go env GOVERSION; cat go.mod go.sum; } | cksum | cut -d ' ' -f 1)
  what="the tools of make $module"
fi

if [ ! -e "$target" ]; then
  echo "building $what, this takes a few minutes the first time" >&2
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/build.XXXXXX")
  build=
  trap '[ -z "$build" ] || kill "$build" 2>/dev/null || true; rm -rf "$work"' EXIT
  mkdir "$work/out"
  CGO_ENABLED=0 go build -v -trimpath -ldflags='-s -w' -o "$work/out/" tool >"$work/log" 2>&1 &
  build=$!
  waited=0
  while kill -0 "$build" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    if [ $((waited % 5)) = 0 ]; then
      echo "  still at it: $(grep -c '^go: downloading' "$work/log") modules fetched, $(grep -vc '^go: ' "$work/log") packages compiled, $waited s" >&2
    fi
  done
  if ! wait "$build"; then
    tail -n 20 "$work/log" >&2
    echo "building $what went wrong: see above; if a module could not be fetched, check the network and GOPROXY and run this again" >&2
    exit 1
  fi
  # One rename makes it whole for everybody at once. Somebody else may have been quicker: his is as good.
  if [ "$module" = temporal ]; then
    mv "$work/out/temporal" "$target"
  else
    mv -T "$work/out" "$target" 2>/dev/null || [ -d "$target" ]
  fi
  echo "built $what: $target" >&2
fi
echo "$target"
