#!/bin/bash
# The guest's first process. It prepares the guest, then obeys lines that come
# over the serial port /dev/ttyS0, and answers each with a line there:
#
#   run N    run the script /share/.run/N.sh; "done N STATUS" when it has ended,
#            and its output is in N.out and N.err
#   kill N   end that script and all that is in its session
#   off      power off, as the end of the serial port's other side does
#
# BITW_SHARE, from the kernel's command line, is the host's folder for /share.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/run/busybox
export HOME=/root LANG=C.UTF-8 TERM=dumb
# For OpenSSL's own code, what GLIBC_TUNABLES says to the C library: no AVX, AVX2, AVX-512.
export OPENSSL_ia32cap='~0x1000000000000000:~0xd0230020'

b=/usr/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t tmpfs tmpfs /run
$b mount -t tmpfs tmpfs /tmp
$b mount -t tmpfs tmpfs /root
$b mount -t devtmpfs dev /dev 2>/dev/null
$b mkdir -p /dev/pts /run/busybox /run/netns /run/lock /run/etc
$b mount -t devpts -o ptmxmode=666 devpts /dev/pts
# The root is shared by all guests and read-only; programs want to write here.
$b cp -a /etc/. /run/etc/
$b mount --bind /run/etc /etc
# Written through at once, so that the host can read what has been answered.
$b mount -t hostfs -o "sync,$BITW_SHARE" none /share || $b poweroff -f
# What is not there as a program of its own is there as BusyBox's.
$b --install -s /run/busybox

echo 3 >/proc/sys/kernel/printk
echo peer >/proc/sys/kernel/hostname
# The kernel starts its module loader without our environment, in which programs
# are told to leave the processor's wide registers alone (see narrowRegisters);
# one that does not heed that gets nonsense for data.
printf '%s\n' '#!/bin/bash' "export GLIBC_TUNABLES=$GLIBC_TUNABLES" 'exec /sbin/modprobe "$@"' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
modprobe -a ipv6 xfrm_user esp4 esp6 ah4 ah6 authenc authencesn echainiv seqiv \
	gcm ghash_generic ccm ctr cbc ecb cmac xcbc hmac sha512_generic chacha20poly1305 chacha_generic poly1305_generic
for conf in /proc/sys/net/ipv6/conf/*; do
	for key in accept_ra accept_dad dad_transmits router_solicitations autoconf; do
		echo 0 >"$conf/$key"
	done
done
ip link set lo up
for card in /sys/class/net/eth*; do
	[[ -e $card ]] && ip link set "${card##*/}" up
done

run() {
	local at=/share/.run/$1
	cd /root
	setsid bash "$at.sh" </dev/null >"$at.out" 2>"$at.err" 3>&- &
	echo $! >"/run/script.$1"
	wait $!
	echo "done $1 $?" >&3
}

exec 3<>/dev/ttyS0
stty raw -echo <&3
echo ready >&3
while read -r word n <&3; do
	case $word in
	run) run "$n" & ;;
	kill) read -r pid <"/run/script.$n" && kill -KILL -- "-$pid" ;;
	off) break ;;
	esac
done
$b poweroff -f
