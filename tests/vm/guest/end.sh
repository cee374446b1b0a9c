# The simulator dies while a daemon drives its card: configuration space reads all ones, the mapped registers keep what they
# last were, and a reset would not return. The daemon finds it by the heartbeat that stands still, says that the card is gone
# and resets nothing. When the process ends the kernel closes the card, and that does try a reset, which takes it a minute
# or for ever; so this waits for the daemon's last words. After this nothing can be done with the card.
simulator_ends() {
    start_spare dead && ask end 3 || return
    within 60 grep -q 'the card is gone; every key of it is wiped' "$log_of_spare" || { cat "$log_of_spare"; return 1; }
    # A reset that was tried would be told as one that failed.
    ! grep -q 'the reset failed' "$log_of_spare" || { cat "$log_of_spare"; return 1; }
}

others_go_on() { equal "the state of the service" active "$(systemctl is-active "$(unit "$card_1")")" && keys; }

check "a simulator that ends takes its daemon along" simulator_ends
check "the other cards' daemons do not notice" others_go_on
