# What is run inside a service's sandbox reports with this what it could do. It is given OWN_NODE ANOTHERS_NODE.
own=$1 another=$2

works() { # NAME COMMAND…
    local name=$1 why
    shift
    if why=$("$@" 2>&1); then echo "PASS $name"; else echo "FAIL $name: $(tail -n 1 <<<"$why")"; fi
}

# refused NAME PATTERN COMMAND…: the command fails, and for that reason.
refused() {
    local name=$1 pattern=$2 why
    shift 2
    if why=$("$@" 2>&1); then
        echo "FAIL $name: it worked $why"
    elif grep -qiE -e "$pattern" <<<"$why"; then
        echo "PASS $name"
    else
        echo "FAIL $name: it failed, but with: $(tail -n 1 <<<"$why")"
    fi
}

open() { exec 9<>"$1"; }
# call NUMBER ARGUMENTS: a system call of x86-64, which has to succeed.
call() { perl -e 'my $got = syscall(shift, map { /^-?\d+$/ ? $_ + 0 : $_ } @ARGV); die "$!\n" if $got == -1' "$@"; }
socket() { perl -e 'socket(my $s, $ARGV[0], $ARGV[1], 0) or die "$!\n"' "$@"; }
