#!/bin/bash
# Runs nginx and, beside it, the edge worker: the arguments are the worker's. A worker that ends is started again while nginx goes on
# serving. When nginx ends, so does the container; whoever runs the container starts it again.
set -euo pipefail

generated=/etc/nginx/transship
patience=120 # seconds until the worker has written nginx's files

# These three, and not the flags below, say that the worker is ready: it writes them last. Until then nginx, which does not run yet, must not
# start with what a killed container left behind. The worker writes everything anew from its state in /var/lib/transship.
rm -f "$generated"/transship_{http,server,location}.conf

worker=
nginx=

stop() {
  trap - TERM INT
  # nginx first, and gently: it finishes the uploads it has, for which the worker's gate must still answer.
  if [ -n "$nginx" ]; then
    kill -QUIT "$nginx" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$nginx" 2>/dev/null || break; sleep 0.2; done
    kill -TERM "$nginx" 2>/dev/null || true
  fi
  [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null || true
  wait || true
}
trap 'stop; exit 0' TERM INT

transship-worker "$@" &
worker=$!

until [ -e "$generated/transship_http.conf" ] && [ -e "$generated/transship_server.conf" ] && [ -e "$generated/transship_location.conf" ]; do
  if ! kill -0 "$worker" 2>/dev/null; then
    echo "edge-entrypoint: the worker ended before it wrote nginx's files" >&2
    exit 1
  fi
  if [ $SECONDS -ge $patience ]; then
    echo "edge-entrypoint: no files in $generated after $patience s" >&2
    stop
    exit 1
  fi
  sleep 0.1
done

nginx -g 'daemon off;' &
nginx=$!

while true; do
  code=0
  wait -n "$worker" "$nginx" || code=$?
  if ! kill -0 "$nginx" 2>/dev/null; then
    echo "edge-entrypoint: nginx ended ($code); ending the worker" >&2
    nginx=
    stop
    exit 1
  fi
  echo "edge-entrypoint: the worker ended ($code); starting it again, nginx goes on" >&2
  sleep 1
  transship-worker "$@" &
  worker=$!
done
