# TLS against a stack that shares nothing with the daemon's: OpenSSL 3.5. The daemon is one of its own, on a simulated card of
# this machine, so that no service has to change.

tls=$work/tls
api=127.0.0.1:8443

tls_up() {
    rm -rf "$tls" && mkdir -m 700 "$tls" || return
    qkd-sim lab-certificates "$tls/lab" --days 2 && qkd-sim lab-certificates "$tls/foreign" --days 2 || return
    {
        cat <<TOML
[module]
name = "T"
role = "leader"
[card]
socket = "$tls/a.sock"
[api]
listen = "$api"
[peer]
listen = "127.0.0.1:7443"
certificate_name = "module-b.qkd.test"
kms = ["kms://b"]
[[kms]]
uri = "kms://a"
endpoint = "https://localhost:9443"
certificate_names = ["URI:kms://a"]
[ledger]
in_memory_forgets_everything = true
TOML
        cat "$tls/lab/tls-a.toml"
    } >"$tls/t.toml"
    qkd-sim pair --socket-a "$tls/a.sock" --socket-b "$tls/b.sock" >"$tls/pair.log" 2>&1 &
    echo $! >>"$tls/processes"
    within 30 grep -q ready "$tls/pair.log" || return
    qkdd --config "$tls/t.toml" >"$tls/qkdd.log" 2>&1 &
    echo $! >>"$tls/processes"
    within 60 grep -q '^ready' "$tls/qkdd.log"
}

# s_client LAB ARGUMENTS…: what OpenSSL says of a request to the API. What was answered is in it.
s_client() {
    local lab=$1
    shift
    (printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'; sleep 3) |
        timeout 60 openssl s_client -connect "$api" -servername localhost -ign_eof -verify_return_error \
            -CAfile "$tls/lab/authority.pem" "$@" 2>&1
}

with() { echo "-cert $tls/$1/kms-a.pem -key $tls/$1/kms-a.key"; }

agreed() {
    local said
    tls_up || { tail -n 3 "$tls"/*.log; return 1; }
    # shellcheck disable=SC2046 # two words each
    said=$(s_client lab -groups X25519MLKEM768 $(with lab))
    contains "$said" 'HTTP/1.1 404' && contains "$said" 'group: X25519MLKEM768' || return
    # In the last place of what is offered it is taken all the same.
    # shellcheck disable=SC2046
    said=$(s_client lab -groups X25519:P-256:X25519MLKEM768 $(with lab))
    contains "$said" 'group: X25519MLKEM768'
}

# nothing_of_the_api PATTERN SAID: refused, and by that alert. An authority of the same name is known by its signature only.
nothing_of_the_api() {
    ! grep -q 'HTTP/1' <<<"$2" || { echo "it was answered: $2"; return 1; }
    contains "$2" "$1"
}

without_certificate() { nothing_of_the_api 'certificate required' "$(s_client lab -groups X25519MLKEM768)"; }

# shellcheck disable=SC2046
of_another_authority() { nothing_of_the_api 'alert (unknown ca|decrypt error)' "$(s_client lab -groups X25519MLKEM768 $(with foreign))"; }

# shellcheck disable=SC2046
of_tls_1_2() { nothing_of_the_api 'alert protocol version' "$(s_client lab -tls1_2 $(with lab))"; }

# Without [tls] there is nothing to read, and the service says so and goes on.
reloads() {
    local before
    before=$(pid "$card_1")
    systemctl reload "$(unit "$card_1")" &&
        within 20 contains_journal "SIGHUP: there is no \[tls\]" &&
        equal "the state of the service" active "$(systemctl is-active "$(unit "$card_1")")" &&
        equal "the daemon" "$before" "$(pid "$card_1")"
}

contains_journal() { contains "$(journal --unit "$(unit "$card_1")")" "$1"; }

check "OpenSSL and the daemon agree on X25519MLKEM768" agreed
check "OpenSSL without a certificate gets nothing of the API" without_certificate
check "OpenSSL with a certificate of another authority gets nothing of the API" of_another_authority
check "OpenSSL of TLS 1.2 gets nothing of the API" of_tls_1_2
check "the service reads its certificates again when systemd tells it to" reloads
# A check runs in a shell of its own.
xargs -r kill <"$tls/processes" 2>/dev/null
