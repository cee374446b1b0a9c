#!/bin/bash
# Runs inside the service's own sandbox and reports what it could do. usage: probe.sh OWN_NODE ANOTHERS_NODE
. "$(dirname "$0")/probing.sh"

own_folders() { touch "$STATE_DIRECTORY/probe" "$RUNTIME_DIRECTORY/probe" /tmp/probe && rm "$STATE_DIRECTORY/probe"; }
execute() {
    local folder
    for folder in /tmp /var/tmp "$STATE_DIRECTORY" "$RUNTIME_DIRECTORY"; do
        cp /usr/bin/true "$folder/true" && chmod 700 "$folder/true" || { echo "nothing can be written to $folder"; return 1; }
        "$folder/true" && { echo "in $folder"; return 0; }
    done
    return 1
}
setuid() { touch /tmp/setuid && chmod u+s /tmp/setuid; }
others() {
    local found
    found=$(find /proc -maxdepth 1 -regex '/proc/[0-9]+' ! -user qkd -print -quit)
    [ -z "$found" ] && [ ! -e /proc/1 ] || { echo "it sees ${found:-/proc/1}"; return 1; }
}
rest_of_proc() {
    local name
    for name in sys kallsyms meminfo modules cmdline; do
        [ ! -e "/proc/$name" ] || { echo "it sees /proc/$name"; return 1; }
    done
}
boot_name() { grep -qE '^[0-9a-f]{32}$' <<<"${QKDD_BOOT_ID:-}" || { echo "QKDD_BOOT_ID is '${QKDD_BOOT_ID:-}'"; return 1; }; }
read_only() {
    local found
    found=$(awk '$6 !~ /^ro/ {print $5}' /proc/self/mountinfo | grep -Ev "^/(dev|proc|sys|tmp|var/tmp)(/|$)" |
        grep -vxe "$STATE_DIRECTORY" -e "$RUNTIME_DIRECTORY" | xargs)
    [ -z "$found" ] || { echo "$found"; return 1; }
}
no_core() { [ "$(ulimit -c)$(ulimit -Hc)" = 00 ] || { ulimit -c; return 1; }; }

works "inside, the service opens its own card's node" open "$own"
refused "inside, the service cannot open another card's node" 'not permitted' open "$another"
works "inside, the service writes its own folders" own_folders
refused "inside, the service writes nowhere else" 'read-only file system' touch /run/qkd-vm/writable/probe
works "inside, the service has nothing mounted writable but its own folders" read_only
refused "inside, the service executes nothing that it has written" 'permission denied' execute
refused "inside, the service makes nothing set-user-id" 'not permitted' setuid
works "inside, the service sees no process of another user" others
works "inside, the service sees nothing of /proc but processes" rest_of_proc
works "inside, the service is told the name of this boot" boot_name
works "inside, the service dumps no core" no_core
works "inside, the service has memory for keys that the kernel cannot read" call 447 0
refused "inside, the service has no memory that is writable and executable" 'not permitted|permission denied' call 9 0 4096 7 34 -1 0
refused "inside, the service makes no namespace" 'not permitted' call 272 268435456
refused "inside, the service asks for no real-time scheduling" 'not permitted' chrt --fifo 1 true
refused "inside, the service traces no process" 'not permitted' call 101 0 0 0 0
refused "inside, the service keeps no keys in the kernel's key rings" 'not permitted' call 250 0 -3 1
works "inside, the service has sockets of the internet" socket 2 1
refused "inside, the service has no raw sockets of a network card" 'not supported' socket 17 3
refused "inside, the service has no netlink sockets" 'not supported' socket 16 3
