#!/usr/bin/env bash
# Brings bitw up, in its drop-in form, on the device wire0 (10.77.0.1 and 10.77.0.2) of two
# network namespaces that a benchmark made, protects all IP between the two, and takes it
# down again.
#
#     STATE=DIR bitw.sh up NS_A NS_B      leaves DIR/pids and DIR/addrs ("A B MTU")
#     STATE=DIR bitw.sh down NS_A NS_B
#
# BITW is the program (built from this tree if unset), BITW_ALGORITHM the ESP suite,
# aes128gcm16 if unset, BITW_MODE transport (the default) or tunnel. BITW_ENCAP=yes means
# ESP in UDP, as bitw-udp.sh has it; BITW_OFFLOADS is the value of the key offloads.
set -euo pipefail

[ $# -eq 3 ] && [ -n "${STATE:-}" ] || { echo "usage: STATE=DIR $0 up|down NS_A NS_B" >&2; exit 2; }
algorithm=${BITW_ALGORITHM:-aes128gcm16}
mode=${BITW_MODE:-transport}
encap=${BITW_ENCAP:-no}
offloads=${BITW_OFFLOADS:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# octets of key for the suites that are worth measuring: encryption, then integrity
case $algorithm in
aes128gcm16) sizes="20 0" ;;
aes256gcm16 | chacha20poly1305) sizes="36 0" ;;
aes128-sha256) sizes="16 32" ;;
aes256-sha256) sizes="32 32" ;;
null-sha256) sizes="0 32" ;;
*) echo "$0: no key size known for $algorithm" >&2; exit 2 ;;
esac

hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# sa NAME DIRECTION SPI SOURCE DESTINATION ENCRYPTION-KEY INTEGRITY-KEY
sa() {
	printf '  - {name: %s, direction: %s, protocol: esp, mode: %s, spi: %s, source: %s, destination: %s, algorithm: %s' \
		"$1" "$2" "$mode" "$3" "$4" "$5" "$algorithm"
	[ "$encap" = no ] || printf ', encap: %s' "$encap"
	[ -z "$6" ] || printf ', encryption_key: 0x%s' "$6"
	[ -z "$7" ] || printf ', integrity_key: 0x%s' "$7"
	printf '}\n'
}

# config LOCAL REMOTE OUT IN: the configuration of one side on stdout
config() {
	printf 'interface: wire0\non_failure: open\nstate_dir: %s/seq-%s\ncontrol: %s/%s.sock\n' "$STATE" "$1" "$STATE" "$1"
	[ -z "$offloads" ] || printf 'offloads: %s\n' "$offloads"
	printf 'security_associations:\n'
	if [ "$3" = ab ]; then
		sa ab out 0x1001 "$1" "$2" "$ab_enc" "$ab_int"
		sa ba in 0x2001 "$2" "$1" "$ba_enc" "$ba_int"
	else
		sa ab in 0x1001 "$2" "$1" "$ab_enc" "$ab_int"
		sa ba out 0x2001 "$1" "$2" "$ba_enc" "$ba_int"
	fi
	printf 'policies:\n  - {name: all, local: %s, remote: %s, action: protect, mss_clamp: pmtu, out: [%s], in: [%s]}\n' "$1" "$2" "$3" "$4"
}

up() {
	local side ns local_addr remote out in i
	mkdir -p "$STATE"
	: >"$STATE/pids"
	if [ -z "${BITW:-}" ]; then
		BITW=$STATE/bitw
		(cd "$here/../.." && go build -o "$BITW" ./cmd/bitw)
	fi
	read -r enc int <<<"$sizes"
	ab_enc=$(hex "$enc") ab_int=$(hex "$int") ba_enc=$(hex "$enc") ba_int=$(hex "$int")
	for side in A B; do
		if [ $side = A ]; then
			ns=$1 local_addr=10.77.0.1 remote=10.77.0.2 out=ab in=ba
		else
			ns=$2 local_addr=10.77.0.2 remote=10.77.0.1 out=ba in=ab
		fi
		(umask 077 && config $local_addr $remote $out $in >"$STATE/$side.yaml")
		# nsenter, not ip netns exec: the program keeps the mounts, and with them the bpf
		# file system that its pins are in
		nsenter --net="/run/netns/$ns" "$BITW" up -c "$STATE/$side.yaml" >"$STATE/bitw$side.log" 2>&1 </dev/null &
		echo $! >>"$STATE/pids"
		for ((i = 0; i < 200; i++)); do
			! grep -q 'is cut' "$STATE/bitw$side.log" || break
			sleep 0.05
		done
		grep -q 'is cut' "$STATE/bitw$side.log" || { cat "$STATE/bitw$side.log" >&2; exit 1; }
	done
	echo "10.77.0.1 10.77.0.2 1500" >"$STATE/addrs"
}

down() {
	local pid i
	while read -r pid; do kill "$pid" 2>/dev/null || :; done <"$STATE/pids"
	while read -r pid; do
		for ((i = 0; i < 100; i++)); do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.05
		done
	done <"$STATE/pids"
}

case $1 in
up) up "$2" "$3" ;;
down) down ;;
*) echo "$0: unknown verb $1" >&2; exit 2 ;;
esac
