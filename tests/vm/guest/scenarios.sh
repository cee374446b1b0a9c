# The card scenarios of tests/, on the card that no service has. Their requests to the host are passed on.

run_scenarios() {
    local line words
    coproc SCENARIOS {
        systemd-run --quiet --wait --collect --pipe --unit qkd-vm-scenarios --property User=qkd --property Group=qkd \
            --property LimitMEMLOCK="$(memory_limit)" --property RuntimeMaxSec=240 \
            "$work/card-scenarios" --pci "$spare"
    }
    local from=${SCENARIOS[0]} to=${SCENARIOS[1]}
    while read -r -t 120 -u "$from" line; do
        case $line in
        "PASS "* | "FAIL "*) tell "${line%% *} scenario ${line#* }" ;;
        "HOST fault "*)
            words=${line#HOST fault }
            [[ $words == *end=* ]] || words="end=a $words"
            if why=$(ask fault 3 "$words"); then echo "HOST done" >&"$to"; else echo "HOST refused: $why" >&"$to"; fi
            ;;
        *) log "scenarios: $line" ;;
        esac
    done
}

run_scenarios
