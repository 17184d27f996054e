#!/bin/sh
# Makes the namespace and the search attributes that transship needs, if they are not there. TEMPORAL_ADDRESS says where.
set -eu

namespace=transship

if ! temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1; then
  temporal operator namespace create --namespace "$namespace" --retention 90d --description "migrations of container registries"
fi

# A new namespace takes a few seconds until every service has seen it.
for name in TransshipPrefix TransshipPhase TransshipFrom TransshipTo TransshipOperator TransshipOutcome TransshipWaitsFor; do
  tries=30
  until temporal operator search-attribute list --namespace "$namespace" 2>/dev/null | grep -qw "$name"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
      echo "temporal-setup: search attribute $name could not be added to namespace $namespace" >&2
      exit 1
    fi
    temporal operator search-attribute create --namespace "$namespace" --name "$name" --type Keyword || true
    sleep 1
  done
done
