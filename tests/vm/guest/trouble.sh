# What may go wrong, on the card that no service has, and a daemon that is killed.

spare_configuration=$(other_configuration spare "$spare")
qkdd=(/usr/bin/qkdd --config "$spare_configuration")

# killed: systemd starts the daemon again, which goes on with the ledger that it had, and key goes on.
killed() {
    local before after
    before=$(pid "$card_1")
    [ "$before" -gt 1 ] || { echo "there is no daemon"; return 1; }
    kill -KILL "$before" || return
    another() {
        after=$(pid "$card_1")
        [ "$after" != 0 ] && [ "$after" != "$before" ] && is_ready "$card_1" &&
            equal "ready lines" 2 "$(journal -u "$(unit "$card_1")" | grep -c '^ready ')"
    }
    within 60 another || return
    equal "starts again" 1 "$(systemctl show --property NRestarts --value "$(unit "$card_1")")"
}

same_ledger() { within 30 goes_on; }
goes_on() { contains "$(journal -u "$(unit "$card_1")")" 'goes on in epoch'; }

in_use() {
    local config
    config=$(other_configuration second "$card_2")
    refused second 3 'in use|another' /usr/bin/qkdd --config "$config"
}

shared_group() {
    local config
    config=$(other_configuration shared "$shared")
    refused shared 3 'IOMMU group [0-9]+ .*also holds .*0000:05:00.1' /usr/bin/qkdd --config "$config"
}

# Too little for the keys, and enough for those but not for the card's rings as well.
little_memory_for_keys() { limit=1M refused keys-memory 7 'cannot be locked.*limit on locked memory: 1048576' "${qkdd[@]}"; }
little_memory_for_rings() {
    limit=9M refused rings-memory 3 'bytes of locked memory are needed .* limit is 9437184: raise it to [0-9]+' "${qkdd[@]}"
}

# A card that a vendor's identifiers are configured for, and this is not.
other_vendor() {
    local config=$work/other/vendor.toml
    sed '/^pci = /a pci_id = "1234:5678"' "$spare_configuration" >"$config"
    refused vendor 3 'the device is 5144:0001, not 1234:5678' /usr/bin/qkdd --config "$config"
}

# with_fault WORDS NAME PATTERN: the card has a fault while a daemon takes it, which is refused in words.
with_fault() {
    ask fault 3 "end=a $1" && refused "$2" 3 "$3" "${qkdd[@]}"
}

# another_identity KIND PATTERN: the same, for a card that claims to be another until it is told to be itself again.
another_identity() {
    local result=0
    with_fault "kind=$1" "$1" "$2" || result=1
    ask fault 3 end=a kind=own-identity && return "$result"
}

# start_spare NAME: a daemon on the spare card, of whom the file $log_of_spare tells; sets daemon.
start_spare() {
    log_of_spare=$work/$1.log
    as_qkd "$1" "$(memory_limit)" "${qkdd[@]}" >"$log_of_spare" 2>&1 &
    daemon=$!
    within 60 is_ready_or_ended || { cat "$log_of_spare"; return 1; }
    grep -q '^ready ' "$log_of_spare" || { tail -n 3 "$log_of_spare"; return 1; }
}

is_ready_or_ended() { grep -q '^ready ' "$log_of_spare" || has_ended; }
has_ended() { ! kill -0 "$daemon" 2>/dev/null; }

# ends_as_gone SECONDS: the daemon ends by itself within that time and tells that its card is gone.
ends_as_gone() {
    local code=0
    within "$1" has_ended || { cat "$log_of_spare"; return 1; }
    wait "$daemon" || code=$?
    log "$(cat "$log_of_spare")"
    equal "the exit code" 4 "$code" && contains "$(cat "$log_of_spare")" 'the card is gone; every key of it is wiped'
}

gone() { start_spare gone && ask fault 3 end=a kind=gone for=7s && ends_as_gone 30; }

# After what happened to it, the card is as good as before: once its time is over, for a daemon that is started anew.
serves_again() {
    local try
    for try in 1 2 3 4 5 6 7 8; do
        start_spare "again-$try" || continue
        systemctl stop "qkd-vm-again-$try.service"
        wait "$daemon" || { tail -n 5 "$log_of_spare"; return 1; }
        return 0
    done
    return 1
}

check "a daemon that was killed is started again" killed
check "it goes on with the ledger that it had" same_ledger
check "keys go on after the daemon was killed" keys
check "a second daemon on a card is refused" in_use
check "a card in a shared group is refused" shared_group
check "too small a limit on locked memory for keys is told" little_memory_for_keys
check "too small a limit on locked memory for the card is told with what is needed" little_memory_for_rings
check "a card with other identifiers than configured is refused" other_vendor
check "a card that shows another device identifier is refused" another_identity device-id 'the device is 5144:[0-9a-f]+, not 5144:0001'
check "a contract version too new is refused" another_identity version 'version 2\.'
check "a failing self-test is told" with_fault "kind=self-test count=1" self-test 'self-test'
check "a card that is gone ends its daemon" gone
check "a card that came back serves again" serves_again
