#!/bin/sh
# Makes the namespace TEMPORAL_NAMESPACE and the search attributes that the workflows set, where they're missing.
set -eu
if ! temporal operator namespace describe -n "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
  # Closed runs stay readable for 90 days; what must be kept longer is in the audit log, not in histories.
  temporal operator namespace create -n "$TEMPORAL_NAMESPACE" --retention 90d
fi
# The server learns of a new namespace within seconds.
tries=0
until temporal operator search-attribute create -n "$TEMPORAL_NAMESPACE" \
  --name CuraOrg --type Keyword \
  --name CuraConnection --type Keyword \
  --name CuraPhase --type Keyword \
  --name CuraHealth --type Keyword \
  --name CuraWaitsFor --type Keyword; do
  tries=$((tries + 1))
  if [ "$tries" -ge 30 ]; then
    echo "the search attributes could not be registered: see above" >&2
    exit 1
  fi
  sleep 2
done
