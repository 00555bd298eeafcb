#!/bin/sh
# bench.sh TROCAR FOLDER: measures every figure of README into FOLDER, a record each; under 20 minutes on 2 cores.
# Figures of real cases, frames and clips need ../shared (TROCAR_SHARED names another place); without it they
# are skipped by name. Exits 1 where a measurement failed its own checks, and says which.
set -u
trocar=$1
folder=$2
shared=${TROCAR_SHARED:-../shared}
begun=$(date +%s)
failed=
mkdir -p "$folder"

measure() { # NAME WORKLOAD [OPTIONS]
    name=$1
    shift
    echo "==> $name" >&2
    "$trocar" bench run "$@" -o "$folder/$name.json" >/dev/null || {
        code=$?
        [ "$code" -eq 130 ] && exit 130
        failed="$failed $name"
        echo "    exit $code: trocar bench report $folder/$name.json" >&2
    }
}

measure_shared() { # PATH NAME WORKLOAD [OPTIONS]: where PATH of the shared data is there
    path=$1
    shift
    if [ -e "$shared/$path" ]; then
        measure "$@"
    else
        echo "==> $1: skipped, $shared/$path is not present" >&2
    fi
}

# Times first, while nothing before them has warmed the machine up.
measure dose dose --repeats 60
measure dvh dvh
measure preprocess preprocess
measure preprocess-cached preprocess --frames 1
measure postprocess postprocess --repeats 300
measure model-load model-load --processes 10 --repeats 30
measure session session
measure rpc rpc
measure servers servers
measure brachy brachy
measure peers peers
measure planning-one-core planning --cases 30 --seed 7000 --chains 1 --moves 5000 --cpus 0
measure planning planning
measure_shared video/clips video video \
    --clip "$shared/video/clips/cholec80_video01_720p_25fps_250f.mp4" \
    --clip "$shared/video/clips/endovis17_short_source_1080p_10fps_20f.mp4"
measure_shared video annotator annotator --folder "$shared/video" --repeats 300
measure_shared video accuracy annotator --folder "$shared/video" --repeats 0
measure_shared cases/ldr_clinical clinical clinical --folder "$shared/cases/ldr_clinical"
measure tpgan-arms tpgan-arms --arms empty,random,greedy,gan
measure novelty novelty --cases 20 --seed 910000 --statistics runtime/zoo/tpgan/1/manifest.json
measure privacy privacy

echo "measured in $((($(date +%s) - begun) / 60)) minutes: $folder" >&2
if [ -n "$failed" ]; then
    echo "failed their checks:$failed" >&2
    exit 1
fi
