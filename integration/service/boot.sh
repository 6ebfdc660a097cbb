# boot.sh FOLDER PACKAGES BEFORE: boots systemd as process 1 of the namespaces that it runs in, on
# a copy of the machine's files that is gone with them, on which the lines of shell BEFORE were
# run first, as if before a reboot. The network is the caller's.
set -e
dir=$1 packages=$2 before=$3
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mountpoint -q sys/fs/cgroup || mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf -o mode=700
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm run/packages run/machine
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/net/tun c 10 200 # as udev makes it
cp "$packages"/*.deb run/packages/
mkdir -p etc/systemd/system/bitw@.service.d etc/systemd/system/bitw-guard@.service.d etc/systemd/system/idle.target.wants
printf '[Unit]\nDefaultDependencies=no\n' >etc/systemd/system/idle.target
# There is neither a journal here nor udev, and a test does not wait for long.
printf '[Service]\nStandardOutput=append:/run/log\nStandardError=append:/run/log\nWatchdogSec=5s\n' >etc/systemd/system/bitw@.service.d/test.conf
printf '[Service]\nStandardOutput=append:/run/log\nStandardError=append:/run/log\n' >etc/systemd/system/bitw-guard@.service.d/test.conf
mkdir -p etc/systemd/system/sys-subsystem-net-devices-eth0.device.d
printf '[Unit]\nJobTimeoutSec=1s\n' >etc/systemd/system/sys-subsystem-net-devices-eth0.device.d/test.conf
pivot_root . run/machine
cd /
umount -l /run/machine
sh -ec "$before"
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=idle.target --log-target=console --show-status=no
