# Configurations first, then the packages; udev and systemd do the rest.

install_packages() {
    # The folder, the user and the group are the package's to make: what is there before them belongs to root.
    mkdir -p /etc/qkd && cp "$work/configuration/"*.toml /etc/qkd/ && chmod 0644 /etc/qkd/*.toml || return
    DEBIAN_FRONTEND=noninteractive dpkg --install "$work/packages/"*.deb
}

is_ready() {
    equal "the state of $1" "active running" "$(systemctl show --property ActiveState --property SubState --value "$(unit "$1")" | xargs)" &&
        contains "$(journal -u "$(unit "$1")")" '^ready '
}

service_is_ready() {
    within 60 is_ready "$1" || { journal -u "$(unit "$1")" | tail -n 5; return 1; }
}

listing >"$work/before"
check "the packages install" install_packages
check "the first card's service is ready without being started by hand" service_is_ready "$card_1"
check "the second card's service is ready" service_is_ready "$card_2"
check "the third card's service is ready" service_is_ready "$card_3"

# Without the services nothing that follows can be good, and each of it would wait for its time.
running=$(systemctl is-active "$(unit "$card_1")" "$(unit "$card_2")" "$(unit "$card_3")" | grep -cx active)
if [ "$running" != 3 ]; then
    log "only $running services are active; giving up"
    ask finished
    exit 1
fi
