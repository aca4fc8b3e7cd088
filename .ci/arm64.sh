#!/usr/bin/env bash
# The smoke run on aarch64, as a Jetson has it without its GPU: Debian 12 with its own Python, OpenCV and NumPy, emulated.
#   sudo .ci/arm64.sh WHEEL MATERIAL        (legs.py makes both; `make arm64` calls it)
# What differs by processor is run; calibrate, eval, compare and bench are left out, as they take minutes under emulation.
# Needs root, mmdebstrap and qemu-user-static. The system is unpacked anew each time unless ARM64_ROOT names a folder to keep.
set -euo pipefail
wheel=$(readlink -f "$1") material=$(readlink -f "$2") here=$(readlink -f "$(dirname "$0")")
python=${PYTHON:-python3} root=${ARM64_ROOT:-}

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "aarch64 needs root, for chroot"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
if [ "$(uname -m)" != aarch64 ]; then
	command -v qemu-aarch64-static >/dev/null || skip "qemu-user-static is not installed"
	entry=/usr/lib/binfmt.d/qemu-aarch64.conf
	[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || skip "binfmt_misc cannot be mounted"
	[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || cat $entry >/proc/sys/fs/binfmt_misc/register || skip "binfmt takes no entry"
fi
unshare --mount true || skip "mount namespaces are not allowed here"
if [ -z "$root" ]; then
	root=$(mktemp -d /var/tmp/yolov3_trt-arm64-XXXXXX)
	trap 'rm -rf "$root"' EXIT
fi

if [ ! -e "$root/.complete" ]; then
	# Packages are unpacked by this machine's processor and not configured, which would take minutes under emulation. Of what
	# their scripts would have done three things are needed: which shell and which BLAS are the ones, and who root is.
	mmdebstrap --mode=root --variant=extract --architectures=arm64 --include=dash,python3-venv,python3-opencv \
		--dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/locale/* \
		bookworm "$root/system" >"$root/log" 2>&1 || skip "Debian's packages could not be had: $(tail -1 "$root/log")"
	mkdir -p "$root/system/proc" "$root/system/sys" "$root/system/root"
	ln -sf dash "$root/system/bin/sh"
	for library in blas/libblas.so.3 lapack/liblapack.so.3; do ln -s $library "$root/system/usr/lib/aarch64-linux-gnu/"; done
	echo root:x:0:0:root:/root:/bin/sh >"$root/system/etc/passwd"
	touch "$root/.complete"
fi
root=$root/system

# pip resolves and downloads on this machine, which is quicker than emulated, for what the other has.
platforms=(linux_aarch64 manylinux2014_aarch64)
for glibc in 17 24 26 27 28 31 34 35; do platforms+=("manylinux_2_${glibc}_aarch64"); done
rm -rf "$root/smoke"
mkdir -p "$root/smoke/wheels" "$root/smoke/run"
"$python" -m pip download --quiet --only-binary=:all: --python-version 3.11 --implementation cp "${platforms[@]/#/--platform=}" \
	--constraint "$here/../constraints-jetpack6.txt" --dest "$root/smoke/wheels" "$wheel[cpu,onnx,rtx]" 2>&1 | grep -v WARNING || true
cp -r "$material" "$root/smoke/material"
cp "$here/smoke.py" "$root/smoke/"
unshare --mount bash -c "
	mount -t proc proc '$root/proc' && mount --rbind /dev '$root/dev' && mount --rbind /sys '$root/sys' && exec chroot '$root' /bin/sh -ec '
		export PATH=/usr/bin:/bin
		unset PIP_FIND_LINKS PIP_CONFIG_FILE
		cd /smoke
		python3 -m venv --system-site-packages --clear venv
		venv/bin/pip install --quiet --no-index --no-compile --find-links wheels \"yolov3-trt[cpu,onnx,rtx]\" >&2
		cd run && exec ../venv/bin/python3 ../smoke.py --exact --only package,models,graphs,build,detect,camera,doctor ../material'"
