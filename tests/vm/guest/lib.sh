# What every part of the course uses. The guest's words to the host, and the host's answers, are told in ../README.md.

work=/run/qkd-vm
port=/dev/ttyS1
exec {host}<>"$port"
stty raw -echo <&"$host"

log() { printf 'course: %s\n' "$*" >&2; }
tell() { printf '%s\n' "$*" >&"$host"; }

# check NAME COMMAND…: reports whether the command succeeds; what it writes is the reason when it does not.
check() {
    local name=$1 why began=$SECONDS
    shift
    if why=$("$@" 2>&1); then
        log "passed after $((SECONDS - began)) s: $name"
        tell "PASS $name"
    else
        why=${why:-$* failed}
        log "FAILED after $((SECONDS - began)) s: $name: $why"
        tell "FAIL $name: $(tail -c 1000 <<<"$why" | tr '\r\n\t' '   ')"
    fi
}

# ask REQUEST: succeeds when the host says that it is done.
ask() {
    local answer
    tell "HOST $*"
    read -r -t 150 -u "$host" answer || { echo "the host did not answer: $*"; return 1; }
    answer=${answer%$'\r'}
    case $answer in
    "HOST done"*) return 0 ;;
    *) echo "$* - $answer"; return 1 ;;
    esac
}

# within SECONDS COMMAND…: tries again until the command succeeds. What the last try wrote is shown when none did.
within() {
    local until=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        if [ "$SECONDS" -ge "$until" ]; then
            printf '%s\n' "not in time: $*" "$said"
            return 1
        fi
        sleep 0.2
    done
}

# equal WHAT WANTED FOUND
equal() {
    [ "$2" = "$3" ] || { echo "$1 is '$3' and not '$2'"; return 1; }
}

# contains TEXT PATTERN: the text has it, as an extended regular expression without regard to case.
contains() {
    grep -qiE -e "$2" <<<"$1" || { echo "'$2' is not in: $(tail -n 12 <<<"$1")"; return 1; }
}

unit() { echo "qkdd@$1.service"; }
pid() { systemctl show --property MainPID --value "$(unit "$1")"; }
journal() { journalctl --boot --no-pager --output cat "$@"; }
number_of_group() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }

# as_qkd NAME LIMIT COMMAND…: runs a program as the service's user with a limit on locked memory, for at most 60 s. What it
# writes goes to standard output, and its exit code is handed on.
as_qkd() {
    local name=$1 limit=$2
    shift 2
    timeout 90 systemd-run --quiet --wait --collect --pipe --unit "qkd-vm-$name" --property User=qkd --property Group=qkd \
        --property LimitMEMLOCK="$limit" --property RuntimeMaxSec=60 "$@" 2>&1 </dev/null
}

# A configuration of a card that no service has. Its file is readable by the service's user.
other_configuration() { # NAME ADDRESS
    mkdir -p "$work/other"
    sed -e "s/0000:02:00.0/$2/" -e 's/:8002/:8009/' -e 's/:7002/:7009/' -e 's/:9002/:9009/' -e 's/^grace_ms = .*/grace_ms = 5000/' \
        "$work/configuration/0000:02:00.0.toml" >"$work/other/$1.toml"
    printf '[ledger]\nin_memory_forgets_everything = true\n' >>"$work/other/$1.toml"
    echo "$work/other/$1.toml"
}

memory_limit() { systemctl show --property LimitMEMLOCK --value "$(unit "$card_1")"; }

# refused NAME CODE PATTERN COMMAND…: the program ends with that exit code and says that.
refused() {
    local code=0 wanted=$2 pattern=$3 said
    said=$(as_qkd "$1" "${limit:-$(memory_limit)}" "${@:4}") || code=$?
    log "$said"
    equal "the exit code" "$wanted" "$code" || { tail -n 5 <<<"$said"; return 1; }
    contains "$said" "$pattern"
}

# Every file outside of what changes by itself, and who there is. What a running system writes at any time (logs, dpkg's own lists,
# systemd's timers and random seed, the copies that user tools keep) is not the packages'.
listing() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/lib/systemd -o -path /root \) -prune -o -print |
        grep -vxE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock|/etc/ld\.so\.cache' | sort
    find /run/systemd/system /run/qkd /run/qkdd-proxy /run/qkd-sim /etc/systemd -print 2>/dev/null | sort
    getent passwd | cut -d: -f1 | sed 's/^/user /' | sort
    getent group | cut -d: -f1 | sed 's/^/group /' | sort
}

# nothing_left: what there is now is what $work/before lists.
nothing_left() {
    local left
    listing >"$work/after"
    left=$(diff "$work/before" "$work/after") || { head -n 20 <<<"$left"; return 1; }
}

no_units_left() {
    local left
    left=$(systemctl list-units --all --plain --no-legend 'qkd*' | grep -v '^qkd-vm' | awk '{print $1, $2, $3}')
    [ -z "$left" ] || { echo "systemd still has: $left"; return 1; }
}
