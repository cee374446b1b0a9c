# Key from the cards to the KMSs, and the same key at the other end.

keys() { ask keys begin && ask keys end; }

# Two cards of this machine are the ends of one link.
keys_within() {
    local here=$work/keys
    mkdir -p "$here" && rm -f "$here"/*
    local common=(--source kms://a --destination kms://b --seconds 2)
    timeout 90 qkd-sim kms --module http://127.0.0.1:8002 --listen 127.0.0.1:9002 "${common[@]}" \
        --open --ids-out "$here/ids" --history "$here/a.jsonl" >"$here/a.log" 2>&1 &
    timeout 90 qkd-sim kms --module http://127.0.0.1:8003 --listen 127.0.0.1:9003 "${common[@]}" \
        --join-from "$here/ids" --history "$here/b.jsonl" >"$here/b.log" 2>&1 || { tail -n 3 "$here/b.log"; return 1; }
    wait $! || { tail -n 3 "$here/a.log"; return 1; }
    qkd-sim check "$here/a.jsonl" "$here/b.jsonl"
}

check "keys reach the KMS and are the same at the other end" keys
check "two cards in one host deliver the same keys" keys_within
