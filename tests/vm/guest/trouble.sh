# What may go wrong, on the card that no service has, and a daemon that is killed.

spare_configuration=$(other_configuration spare "$spare")
qkdd=(/usr/bin/qkdd --config "$spare_configuration")

# killed: systemd starts the daemon again, which goes on with the ledger that it had, and key goes on.
killed() {
    local before after
    before=$(pid "$card_1")
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

little_memory() {
    limit=1M refused little-memory 3 'locked memory.*limit' "${qkdd[@]}"
}

# with_fault WORDS NAME CODE PATTERN
with_fault() {
    ask fault 3 "end=a $1" && refused "$2" "$3" "$4" "${qkdd[@]}"
}

check "a daemon that was killed is started again" killed
check "it goes on with the ledger that it had" same_ledger
check "keys go on after the daemon was killed" keys
check "a second daemon on a card is refused" in_use
check "a card in a shared group is refused" shared_group
check "too small a limit on locked memory is told with what is needed" little_memory
