#!/bin/bash
# Runs nginx and the edge worker as one: the arguments are the worker's. When either ends, so does the other, and the container
# with it; whoever runs the container starts both again.
set -euo pipefail

generated=/etc/nginx/transship
patience=120 # seconds until the worker has written nginx's files

# nginx must not start on a table from before: the worker writes the files anew from what it remembers and has been told.
rm -f "$generated"/transship_{http,server,location}.conf

transship-worker "$@" &
worker=$!
nginx=

stop() {
  trap - TERM INT
  # nginx first, and gently: it finishes the uploads it has, for which the worker's gate must still answer.
  if [ -n "$nginx" ]; then
    kill -QUIT "$nginx" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$nginx" 2>/dev/null || break; sleep 0.2; done
    kill -TERM "$nginx" 2>/dev/null || true
  fi
  kill -TERM "$worker" 2>/dev/null || true
  wait || true
}
trap 'stop; exit 0' TERM INT

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

code=0
wait -n "$worker" "$nginx" || code=$?
echo "edge-entrypoint: nginx or the worker ended ($code); ending the other" >&2
stop
[ "$code" -ne 0 ] || code=1
exit "$code"
