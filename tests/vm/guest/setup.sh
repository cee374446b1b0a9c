# What udev and systemd have made of the cards.

has_vfio_pci() {
    local card
    for card in "$card_1" "$card_2" "$card_3" "$spare" "$shared"; do
        contains "$(lspci -k -s "$card")" 'Kernel driver in use: vfio-pci$' || return
    done
}

# Only what differs from machine to machine is taken out: addresses, group, and the slot's number.
lspci_as_reviewed() {
    lspci -vvv -s "$card_1" | sed -E \
        -e 's/^[0-9a-f:.]+ /ADDRESS /' -e 's/(Memory at )[0-9a-f]+/\1ADDRESS/' \
        -e 's/(IOMMU group: )[0-9]+/\1NUMBER/' -e 's/(Physical Slot: ).*/\1NUMBER/' -e '/^\s*NUMA node:/d' -e '/^$/d' >"$work/lspci.txt"
    diff -u "$work/expected/lspci.txt" "$work/lspci.txt"
}

nodes_and_links() {
    local card group
    for card in "$card_1" "$card_2" "$card_3" "$spare"; do
        group=$(number_of_group "$card")
        equal "the link of $card" "/dev/vfio/$group" "$(readlink -f "/dev/qkd/$card")" &&
            equal "owner and mode of group $group" "root:qkd 660" "$(stat --format '%U:%G %a' "/dev/vfio/$group")" || return
    done
}

shared_group_is_roots() {
    local group
    group=$(number_of_group "$shared")
    equal "functions in group $group" 2 "$(ls "/sys/kernel/iommu_groups/$group/devices" | wc -l)" &&
        equal "owner and mode of group $group" "root:root 600" "$(stat --format '%U:%G %a' "/dev/vfio/$group")" || return
    [ ! -e "/dev/qkd/$shared" ] || { echo "there is a link"; return 1; }
    contains "$(journal -t qkd-card)" "group $group holds a QKD card and also:.*0000:05:00.1"
}

# A card without a configuration has a service that stays down, without having failed.
stays_down() {
    equal "the state of the service" inactive "$(systemctl is-active "$(unit "$spare")")" || return
    contains "$(systemctl show --property ConditionResult --value "$(unit "$spare")")" '^no$'
}

is_notify() {
    equal "the type" notify "$(systemctl show --property Type --value "$(unit "$card_1")")" &&
        equal "starts again" 0 "$(systemctl show --property NRestarts --value "$(unit "$card_1")")"
}

# no_privilege: user, capabilities and filters of the running daemon as the kernel shows them.
no_privilege() {
    local status card
    for card in "$card_1" "$card_2" "$card_3"; do
        status=$(cat "/proc/$(pid "$card")/status") || return
        equal "the user" "$(id -u qkd)" "$(awk '/^Uid:/ {print $2}' <<<"$status")" &&
            equal "all its users" 1 "$(awk '/^Uid:/ {print $2; print $3; print $4; print $5}' <<<"$status" | sort -u | wc -l)" &&
            equal "the group" "$(id -g qkd)" "$(awk '/^Gid:/ {print $2}' <<<"$status")" &&
            equal "the capabilities" "CapInh:0 CapPrm:0 CapEff:0 CapBnd:0 CapAmb:0" \
                "$(awk '/^Cap/ {sub(/\t0+$/, "0"); print}' <<<"$status" | xargs)" &&
            equal "NoNewPrivs" 1 "$(awk '/^NoNewPrivs:/ {print $2}' <<<"$status")" &&
            equal "Seccomp" 2 "$(awk '/^Seccomp:/ {print $2}' <<<"$status")" || return
    done
}

one_each() {
    local pids
    pids=$(printf '%s\n' "$(pid "$card_1")" "$(pid "$card_2")" "$(pid "$card_3")" | sort -u | grep -cv '^0$')
    equal "the number of daemons" 3 "$pids"
}

check "lspci -k shows vfio-pci for each card" has_vfio_pci
check "lspci -vvv is as reviewed" lspci_as_reviewed
check "nodes belong to group qkd and links point at them" nodes_and_links
check "a group with a foreign function stays root's" shared_group_is_roots
check "a card without a configuration starts nothing" stays_down
check "the service tells systemd that it is ready" is_notify
check "the daemons have no privilege" no_privilege
check "each card has a daemon of its own" one_each
check "udevadm verify" udevadm verify /usr/lib/udev/rules.d/69-qkd-card-ids.rules /usr/lib/udev/rules.d/70-qkd-card.rules
check "systemd-analyze verify" systemd-analyze verify --man=no /usr/lib/systemd/system/{qkdd,qkdd-sim,qkd-sim,qkdd-proxy}@.service
