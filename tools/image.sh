#!/usr/bin/env bash
# Builds an image and uses it: `tools/image.sh [cpu|cuda] [BUILD OPTIONS]`. It runs as deploying.md says, without
# root, network or a file to write, plans and annotates from within, and ends at SIGTERM.
# CONTAINER is docker or podman; RUN_OPTIONS go to its run, such as `--gpus all`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
container=${CONTAINER:-docker}
target=${1:-cpu}
image=trocar:$target
read -ra run_options <<<"${RUN_OPTIONS:-}"

say() { printf '\n==> %s\n' "$*"; }
fail() { echo "image: $*" >&2; exit 3; }
inside() { "$container" exec "$server" "$@"; }

say "Build $image"
"$container" build -f deploy/docker/Dockerfile --target "$target" -t "$image" "${@:2}" .
"$container" image inspect --format '{{.Size}} bytes, user {{.Config.User}}' "$image"

say "Start it"
server=$("$container" run --detach --network none --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges "${run_options[@]}" "$image")
trap '"$container" rm --force "$server" >/dev/null' EXIT
inside python3 /usr/local/lib/trocar/healthy.py 127.0.0.1:8001 60 || { "$container" logs "$server"; fail "not healthy"; }
inside trocar --version --verbose

say "What has no place in it"
for tool in cc gcc g++ nvcc pip pip3; do
    ! inside sh -c "command -v $tool" || fail "$tool is in the image"
done
! inside touch /var/lib/trocar/file 2>/dev/null || fail "the root can be written"
[ "$(inside id -u)" -ne 0 ] || fail "it runs as root"

say "Use it"
inside trocar plan phantom:7 --server 127.0.0.1:8001
inside trocar annotate rendered:7:1 --server 127.0.0.1:8001

say "Stop it (SIGTERM)"
"$container" stop --time 40 "$server" >/dev/null
code=$("$container" inspect --format '{{.State.ExitCode}}' "$server")
"$container" logs "$server"
[ "$code" = 0 ] || fail "it ended with $code"
