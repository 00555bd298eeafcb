#!/usr/bin/env bash
# Plans a phantom and annotates a rendered clip over gRPC, as `make demo` shows it: a server of our own on a Unix
# socket, two calls, a clean stop.
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
video=0
"$bin/trocar" plan "phantom:$phantom" --server "$address" -o "$out" || code=$?

clip=rendered:${CLIP:-7}:4
say "Annotate a rendered operation: trocar annotate $clip --server $address --overlay $out/annotated.mp4 ..."
"$bin/trocar" annotate "$clip" --server "$address" --overlay "$out/annotated.mp4" \
    --picture "$out/annotated.png" --report "$out/video.html" || video=$?

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
echo "    video    $PWD/$out/annotated.mp4, $PWD/$out/annotated.png and its report $PWD/$out/video.html"
exit "$video"
