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

# The last of all. The unit that this test made itself, and what the commands of confinement.md made by hand below /etc, are no
# package's to remove.
purge() {
    systemctl stop 'qkd-vm-*.service' 2>/dev/null
    rm -rf /run/systemd/system/qkd-probe@.service /etc/systemd/system/qkdd@*.service.d /etc/systemd/system/qkdd-*@*.socket.d \
        /etc/systemd/system/*.wants/qkdd-*@*
    rmdir --ignore-fail-on-non-empty /etc/systemd/system/sockets.target.wants
    DEBIAN_FRONTEND=noninteractive timeout 90 dpkg --purge qkdd qkd-sim
}

check "the packages are purged" purge
check "purge leaves no file, user or group behind" nothing_left
check "purge leaves no unit behind" no_units_left
