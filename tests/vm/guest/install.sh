# Configurations first, then the packages; udev and systemd do the rest.

# Every file outside of what changes by itself, and who there is. What a running system writes at any time (logs, dpkg's own lists,
# systemd's timers and random seed, the copies that user tools keep) is not the packages'.
listing() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
        -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/systemd -o -path /root \) -prune -o -print |
        grep -vxE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock|/etc/ld\.so\.cache' | sort
    find /run/systemd/system /run/qkd /run/qkdd-proxy /run/qkd-sim /etc/systemd -print 2>/dev/null | sort
    getent passwd | cut -d: -f1 | sed 's/^/user /' | sort
    getent group | cut -d: -f1 | sed 's/^/group /' | sort
}

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
