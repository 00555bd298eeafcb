#!/bin/sh
# Installs what the DICOM tests hold our files against: dciodvfy, dcmdump, storescu, storescp, Orthanc. Where that
# cannot be, it says so, and those tests skip; it never fails the build.
set -u

missing() {
    found=""
    for pair in dciodvfy:dicom3tools dcmdump:dcmtk storescu:dcmtk storescp:dcmtk Orthanc:orthanc; do
        PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || found="$found ${pair##*:}"
    done
    echo "$found" | tr ' ' '\n' | sort -u | xargs
}

without() {
    echo "dicomtools: no $(missing): $1; tests that need them skip" >&2
    exit 0
}

packages=$(missing)
[ -n "$packages" ] || exit 0
command -v apt-get >/dev/null 2>&1 || without "this machine has no apt-get"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    without "installing needs root"
fi

# Services that packages would start are told not to (invoke-rc.d(8)): the tests start an Orthanc of their own.
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
    made=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null && $as_root chmod +x "$policy"
fi
# shellcheck disable=SC2064
trap "[ -z '$made' ] || $as_root rm -f $policy" EXIT
trap 'exit 1' INT TERM

apt() {
    # A network that is not there shall cost seconds, not minutes.
    timeout 180 $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=15 -o DPkg::Lock::Timeout=60 "$@" >/dev/null 2>&1 </dev/null
}

echo "dicomtools: apt-get install $packages"
# shellcheck disable=SC2086
apt install --no-install-recommends -y $packages ||
    { apt update; apt install --no-install-recommends -y $packages; } ||
    without "apt-get could not install them"
[ -z "$(missing)" ] || without "apt-get installed something else"
