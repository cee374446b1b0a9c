# Two modules that are the ends of one link lose their network, by the commands of the page that the package installs: one waits
# for the other, one connects. Key goes on between them and to their KMSs, through what systemd holds for them.

page=/usr/share/doc/qkdd/confinement.md

# commands MARK NUMBER: the page's block number NUMBER behind that mark.
commands() {
    awk -v mark="<!-- $1 -->" -v wanted="$2" '
        $0 == mark { found += 1; next }
        /^```sh$/ && found == wanted { inside = 1; next }
        /^```$/ && inside { exit }
        inside { print }' "$page"
}

# as_written CARD NUMBER MARK NUMBER: runs that block with this card's own addresses and names.
as_written() {
    local block
    block=$(commands "$3" "$4" | sed -e "s/0000:01:00\\.0/$1/g" -e "s/192\\.0\\.2\\.1:8001/127.0.0.1:800$2/" \
        -e "s/192\\.0\\.2\\.[12]:7001/127.0.0.1:7002/" -e "s/192\\.0\\.2\\.7:9001/127.0.0.1:900$2/" \
        -e "s/kms-a/kms-$2/g" -e "s/proxy\\/peer\\.conf/proxy\\/peer-$2.conf/; s/proxy@peer\\./proxy@peer-$2./")
    [ -n "$block" ] || { echo "the page has no such commands"; return 1; }
    log "$block"
    bash -ec "$block"
}

configure() { # CARD NUMBER
    sed -i -e "s|^connect = .*|&\\nthrough = \"/run/qkdd-proxy/peer-$2.sock\"|" \
        -e "s|^endpoint = .*|&\\nthrough = \"/run/qkdd-proxy/kms-$2.sock\"|" "/etc/qkd/$1.toml"
    grep -c '^through = ' "/etc/qkd/$1.toml"
}

confine() {
    as_written "$card_2" 2 'run' 1 && as_written "$card_3" 3 'run' 1 || return
    equal "the ways out of the second card's module" 1 "$(configure "$card_2" 2)" &&
        equal "the ways out of the third card's module" 2 "$(configure "$card_3" 3)" || return
    as_written "$card_2" 2 'run where the peer connects' 1 && as_written "$card_2" 2 'run' 2 && as_written "$card_3" 3 'run' 2 || return
    for card in "$card_2" "$card_3"; do
        within 30 is_ready "$card" || { journal -u "$(unit "$card")" | tail -n 5; return 1; }
    done
}

exposed() {
    local card
    for card in "$card_2" "$card_3"; do
        systemd-analyze security --no-pager --threshold=4 "$(unit "$card")" || return
    done
}

# As the kernel shows the running daemons: another network than the host's, and a UNIX socket is all that they made themselves.
own_network() {
    local card
    for card in "$card_2" "$card_3"; do
        [ "$(readlink "/proc/$(pid "$card")/ns/net")" != "$(readlink /proc/1/ns/net)" ] || { echo "$card has the host's network"; return 1; }
    done
    # Of what it listens on, the host sees everything, and the module nothing.
    contains "$(cat /proc/net/tcp)" ':1F42 ' && equal "the second module's own TCP sockets" 1 "$(wc -l <"/proc/$(pid "$card_2")/net/tcp")"
}

stopped_stays_stopped() {
    systemctl stop "$(unit "$card_3")" || return
    equal "the state of its socket" inactive "$(systemctl is-active "qkdd-api@$card_3.socket")" || return
    (exec 3<>/dev/tcp/127.0.0.1/8003) 2>&1 && { echo "somebody listens"; return 1; }
    equal "the state of the service" inactive "$(systemctl is-active "$(unit "$card_3")")" || return
    systemctl start "$(unit "$card_3")" && within 30 is_ready "$card_3"
}

check "two modules start without a network" confine
check "systemd judges their exposure as 0.4 or less" exposed
check "they have no network of their own" own_network
check "they deliver the same keys through systemd's sockets" keys_within
check "the sandbox without a network can be probed" probe "$(unit "$card_2")" confined-probe.sh
check "a module that was stopped by hand is not started by a call" stopped_stays_stopped
