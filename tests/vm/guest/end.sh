# The simulator dies while a daemon drives its card: configuration space reads all ones, the mapped registers keep what they
# last were, and a reset would not return. The daemon finds it by the heartbeat that stands still, says that the card is gone
# and resets nothing. When the process ends the kernel closes the card, and that does try a reset, of which nobody knows how
# long it takes; so this waits for what the daemon says. After this nothing can be done with the card.
# The heart is waited for as long as card.grace_ms says.
simulator_ends() {
    start_spare dead && ask end 3 || return
    within 60 grep -q 'the card is gone; every key of it is wiped' "$log_of_spare" || { cat "$log_of_spare"; return 1; }
    ! grep -q 'function level reset anyway' <(dmesg | tail -n 3) || { echo "the daemon had it reset"; return 1; }
}

others_go_on() { equal "the state of the service" active "$(systemctl is-active "$(unit "$card_1")")" && keys; }

check "a simulator that ends takes its daemon along" simulator_ends
check "the other cards' daemons do not notice" others_go_on
