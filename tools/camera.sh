#!/bin/sh
# Runs the tests of a camera on Linux's virtual one (vivid), in a virtual machine that QEMU emulates: this machine needs no
# camera, no module and no root for it. The guest's root is this machine's, read-only. Takes minutes.
set -eu

[ $# -eq 2 ] || { echo "usage: tools/camera.sh PYTHON FOLDER" >&2; exit 2; }
python=$(realpath -s "$1")
work=$(realpath -m "$2")
here=$(realpath "$(dirname "$0")/..")
for tool in qemu-system-x86_64 busybox dpkg-deb apt-get; do
    command -v "$tool" >/dev/null ||
        { echo "camera: needs $tool; on Debian: apt-get install qemu-system-x86 busybox-static" >&2; exit 2; }
done

# Debian's kernel, unpacked and not installed.
if [ ! -e "$work/kernel/version" ]; then
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p')
    echo "camera: downloading $package"
    rm -rf "$work" && mkdir -p "$work"
    (cd "$work" && apt-get -qq download "$package" && dpkg-deb -x "$package"_*.deb kernel && rm "$package"_*.deb)
    busybox depmod -b "$work/kernel" "${package#linux-image-}"
    echo "${package#linux-image-}" >"$work/kernel/version"
fi
version=$(cat "$work/kernel/version")

# What comes up first: the modules of the camera and of the file system that holds the root.
rm -rf "$work/first" "$work/out"
mkdir -p "$work/first/bin" "$work/out"
cp "$(command -v busybox)" "$work/first/bin/"
at=lib/modules/$version
grep -E '/(vivid|9p|9pnet_virtio|virtio_pci)\.ko:' "$work/kernel/$at/modules.dep" | tr -d : | tr ' ' '\n' | sort -u |
    (cd "$work/kernel/$at" && mkdir -p "$work/first/$at" && xargs cp --parents -t "$work/first/$at" modules.dep)
cat >"$work/first/init" <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in virtio_pci 9pnet_virtio 9p vivid; do modprobe \$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=262144 root /root
mount -t devtmpfs none /root/dev
mkdir -p /root/dev/shm
mount -t proc none /root/proc
mount -t sysfs none /root/sys
for at in dev/shm tmp run; do mount -t tmpfs none /root/\$at; done
mkdir /root/tmp/out
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,rw out /root/tmp/out
ip link set lo up
cd /root
chroot . /bin/sh /tmp/out/tests >/dev/ttyS0 2>&1
echo \$? >/root/tmp/out/code
poweroff -f
INIT
chmod +x "$work/first/init"
(cd "$work/first" && busybox find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/first.gz"
cat >"$work/out/tests" <<TESTS
cd "$here"
export HOME=/tmp TERM=dumb PYTHONDONTWRITEBYTECODE=1 PATH=/usr/bin:/bin
exec "$python" -m pytest -v -p no:cacheprovider --timeout 1800 tests/integration/test_camera.py
TESTS

qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 4G -nographic -no-reboot -nic none \
    -kernel "$work/kernel/boot/vmlinuz-$version" -initrd "$work/first.gz" -append "console=ttyS0 quiet panic=-1" \
    -virtfs "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap" \
    -virtfs "local,path=$work/out,mount_tag=out,security_model=none" </dev/null
exit "$(cat "$work/out/code" 2>/dev/null || echo 3)"
