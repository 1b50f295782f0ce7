#!/usr/bin/env bash
# Every check that needs no run of the program; all of them are made, and each that fails says how to go on.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(tools/build.sh lint)
failed=

check() {
  local name=$1 hint=$2
  shift 2
  echo "== $name"
  if ! "$@"; then
    echo "$name: $hint"
    failed=1
  fi
}

formatted() {
  local diff
  if ! diff=$("$bin/golangci-lint" fmt --diff) || [ -n "$diff" ]; then
    echo "$diff"
    return 1
  fi
}

# The database of known vulnerabilities is on the network; not every machine gets there.
vulnerabilities() {
  local probe code=0
  probe=$(timeout 30 "$bin/govulncheck" ./internal/cura 2>&1) || code=$?
  if [ "$code" = 124 ] || grep -q 'fetching vulnerabilities' <<<"$probe"; then
    echo "govulncheck skipped: database not reachable"
    return 0
  fi
  "$bin/govulncheck" ./...
}

check "gofumpt, goimports" "run make fmt" formatted
check "go vet" "see above" go vet ./...
check "golangci-lint" "see above; the reasons of the import rules are in .golangci.yml" "$bin/golangci-lint" run
check "workflowcheck" "workflow code must be deterministic: see above" "$bin/workflowcheck" -config workflowcheck.config.yaml ./workflows/...
check "govulncheck" "raise the modules named above" vulnerabilities

[ -z "$failed" ] || exit 1
