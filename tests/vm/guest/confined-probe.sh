#!/bin/bash
# Runs inside the sandbox of a service without a network and reports what it could do. usage: confined-probe.sh OWN_NODE ANOTHERS_NODE
. "$(dirname "$0")/probing.sh"

only_loopback() {
    local found
    found=$(awk -F: 'NR > 2 && $1 !~ /^ *lo$/ {print $1}' /proc/self/net/dev | xargs)
    [ -z "$found" ] || { echo "it has $found"; return 1; }
}
few_devices() {
    local found
    found=$(ls /dev | grep -vxE 'null|zero|full|random|urandom|tty|ptmx|pts|shm|mqueue|hugepages|log|core|fd|char|std(in|out|err)|vfio|iommu|qkd' | xargs)
    [ -z "$found" ] || { echo "it sees $found"; return 1; }
}
way_out() {
    perl -MSocket -e 'my $s; socket($s, AF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un($ARGV[0])) or die "$!\n"' /run/qkdd-proxy/kms-2.sock
}

works "confined, the service opens its own card's node" open "$own"
refused "confined, the service cannot open another card's node" 'not permitted' open "$another"
works "confined, the service sees no other devices" few_devices
works "confined, the service has no network card" only_loopback
refused "confined, the service makes no IPv4 socket" 'not supported' socket 2 1
refused "confined, the service makes no IPv6 socket" 'not supported' socket 10 1
refused "confined, the service makes no netlink socket" 'not supported' socket 16 3
works "confined, the service connects to a way out" way_out
