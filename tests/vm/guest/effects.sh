# What the service can do, see and open: effects, not directives. A unit that is the service's own but for the program it
# runs, on the card that no service has, tries what it must and must not be able to do. The daemons are looked at from outside.

# make_probe UNIT SCRIPT ARGUMENTS…: the unit as systemd has it, drop-ins and all; only what starts and watches the daemon,
# and what it is passed, is replaced.
make_probe() {
    local from=$1
    shift
    mkdir -p "$work/writable" && chmod 1777 "$work/writable" || return
    systemctl cat "$from" |
        sed -e '/^\(Type\|NotifyAccess\|WatchdogSec\|Restart\|RestartSec\|ConditionPathExists\|Requires\|Sockets\)=/d' \
            -e "s|^ExecStart=.*|Type=oneshot\nExecStart=/usr/bin/bash $PWD/$*\nStandardOutput=truncate:$work/probe.txt|" \
            -e 's|^ExecPaths=.*|& /usr/bin|' -e 's|^BindReadOnlyPaths=.*|& /usr/bin|' >/run/systemd/system/qkd-probe@.service
    systemctl daemon-reload
}

# probe UNIT SCRIPT: runs it in the place of the service of the card that has none.
probe() {
    make_probe "$1" "$2" "/dev/vfio/$(number_of_group "$spare")" "/dev/vfio/$(number_of_group "$card_2")" || return
    systemctl start "qkd-probe@$spare.service" || return
    # What the probe reports are checks of their own.
    while read -r line; do
        case $line in "PASS "* | "FAIL "*) tell "$line" ;; *) log "probe: $line" ;; esac
    done <"$work/probe.txt"
}

limits() {
    local card limit
    for card in "$card_1" "$card_2" "$card_3"; do
        limit=$(cat "/proc/$(pid "$card")/limits") || return
        equal "locked memory" "536870912" "$(awk '/^Max locked memory/ {print $4}' <<<"$limit")" &&
            equal "core dumps" "0" "$(awk '/^Max core file size/ {print $5}' <<<"$limit")" || return
    done
}

# What the daemon has open below /dev is its own card, and nothing of another's.
open_devices() {
    local card open
    for card in "$card_1" "$card_2" "$card_3"; do
        open=$(find "/proc/$(pid "$card")/fd" -lname '/dev/*' -printf '%l\n' | sort -u | grep -v '^/dev/null$' | xargs)
        equal "what $card has open" "/dev/vfio/$(number_of_group "$card") /dev/vfio/vfio" "$open" || return
    done
}

# Another program of the same user reads no memory of the daemon.
closed_memory() {
    local process said
    process=$(pid "$card_1")
    equal "the owner of the daemon's memory" root "$(stat --format %U "/proc/$process/mem")" || return
    said=$(setpriv --reuid=qkd --regid=qkd --clear-groups cat "/proc/$process/maps" 2>&1) && { echo "maps can be read"; return 1; }
    contains "$said" 'permission denied'
}

check "the service can be probed" probe "$(unit "$spare")" probe.sh
check "the daemons may lock 512 MiB and dump no core" limits
check "each daemon has its own card's node open and no other" open_devices
check "the daemon's memory is closed to its own user" closed_memory
