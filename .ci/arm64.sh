#!/usr/bin/env bash
# The smoke run on aarch64, as a Jetson has it without its GPU: Debian 12 with its own Python, OpenCV and NumPy, emulated.
#   sudo .ci/arm64.sh WHEEL MATERIAL        (legs.py makes both; `make arm64` calls it)
# What differs by processor is run; calibrate, eval, compare and bench are left out, as they take minutes under emulation.
# Needs root, debootstrap and qemu-user-static. The system is made once, in about 6 minutes, in ARM64_ROOT.
set -euo pipefail
wheel=$(readlink -f "$1") material=$(readlink -f "$2") here=$(readlink -f "$(dirname "$0")")
root=${ARM64_ROOT:-/var/tmp/yolov3_trt-arm64} python=${PYTHON:-python3}

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "aarch64 needs root, for chroot"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
command -v qemu-aarch64-static >/dev/null || skip "qemu-user-static is not installed"
entry=$(ls /usr/lib/binfmt.d/qemu-aarch64*.conf 2>/dev/null | head -1)
if [ "$(uname -m)" != aarch64 ]; then
	[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || skip "binfmt_misc cannot be mounted"
	[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || cat "$entry" >/proc/sys/fs/binfmt_misc/register || skip "binfmt takes no entry"
fi

if [ ! -e "$root/.complete" ]; then
	rm -rf "$root"
	debootstrap --arch=arm64 --foreign --variant=minbase --include=python3-venv,python3-opencv bookworm "$root" >"$root.log" 2>&1 \
		&& chroot "$root" /debootstrap/debootstrap --second-stage >>"$root.log" 2>&1 \
		|| { tail -5 "$root.log"; skip "debootstrap failed"; }
	touch "$root/.complete"
fi

# pip runs on this machine, which is quicker than emulated, for what the other has.
platforms=(linux_aarch64 manylinux2014_aarch64)
for glibc in 17 24 26 27 28 31 34 35; do platforms+=("manylinux_2_${glibc}_aarch64"); done
rm -rf "$root/smoke"
mkdir -p "$root/smoke/wheels" "$root/smoke/run"
"$python" -m pip download --quiet --only-binary=:all: --python-version 3.11 --implementation cp "${platforms[@]/#/--platform=}" \
	--constraint "$here/../constraints-jetpack6.txt" --dest "$root/smoke/wheels" "$wheel[cpu,onnx,eval,rtx]" 2>&1 | grep -v WARNING || true
cp -r "$material" "$root/smoke/material"
cp "$here/smoke.py" "$root/smoke/"
unshare --mount bash -c "
	mount -t proc proc '$root/proc' && mount --rbind /dev '$root/dev' && mount --rbind /sys '$root/sys' && exec chroot '$root' /bin/bash -ec '
		cd /smoke
		python3 -m venv --system-site-packages --clear venv
		venv/bin/pip install --quiet --no-index --find-links wheels \"yolov3-trt[cpu,onnx,eval,rtx]\" >&2
		cd run && exec ../venv/bin/python3 ../smoke.py --exact --only package,models,graphs,build,detect,camera,doctor ../material'"
