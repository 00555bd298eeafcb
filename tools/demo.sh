#!/usr/bin/env bash
# Plans a phantom over gRPC, as `make demo` shows it: a server of our own on a Unix socket, one call, a clean stop.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-.venv/bin}
out=${OUT:-out/demo}
phantom=${PHANTOM:-7}

say() { printf '\n==> %s\n' "$*"; }

folder=$(mktemp -d)
address=unix:$folder/trocar.sock
server=
stop() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    rm -rf "$folder"
}
trap stop EXIT

say "Start a server: trocar serve --listen $address"
"$bin/trocar" serve --listen "$address" 2>"$folder/log" &
server=$!
for attempt in $(seq 60); do
    "$bin/python" tools/healthy.py "$address" 1 2>/dev/null && break
    if ! kill -0 "$server" 2>/dev/null || [ "$attempt" -eq 60 ]; then
        echo "demo: the server did not start" >&2
        cat "$folder/log" >&2
        exit 3
    fi
done

say "The patient is a phantom: trocar phantom $phantom"
"$bin/trocar" phantom "$phantom"

say "Plan it over gRPC: trocar plan phantom:$phantom --server $address -o $out"
code=0
"$bin/trocar" plan "phantom:$phantom" --server "$address" -o "$out" || code=$?

say "Stop the server (SIGTERM: it finishes what is in flight)"
kill -TERM "$server"
wait "$server" || { cat "$folder/log" >&2; exit 3; }
server=
sed 's/^/    /' "$folder/log"

if [ "$code" -ne 0 ]; then
    say "The plan did not pass (exit code $code)"
    exit "$code"
fi
say "Look at it"
echo "    picture  $PWD/$out/plan.png"
echo "    report   $PWD/$out/report.html (open it in a browser)"
