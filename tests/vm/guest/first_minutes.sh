# The README's first five minutes, its commands as they stand there, on a machine that has seen nothing of this project yet.

minutes=$work/first-minutes
mkdir -p "$minutes"

# block NAME: the commands below that marker.
block() {
    awk -v marker="<!-- first minutes: $1 -->" '
        $0 == marker { found = 1 } found && /^```$/ { exit } found && inside { print } found && /^```sh$/ { inside = 1 }' "$work/README.md"
}

# first_words: of each command on standard input, its first word. Here-documents and continued lines are no commands.
first_words() {
    awk '
        document { if ($0 == document) document = ""; next }
        { continued = goes_on; goes_on = /\\$/ }
        match($0, /<<[A-Z]+/) { document = substr($0, RSTART + 2, RLENGTH - 2) }
        !continued { gsub(/; */, "\n"); n = split($0, commands, "\n"); for (i = 1; i <= n; i++) { split(commands[i], words, " "); print words[1] } }'
}

# Each word is the shell's own or a program of a Debian package.
few_commands_of_packages() {
    local words word file
    words=$(for name in install configure deliver see end; do block "$name"; done | first_words)
    log "commands: $(xargs <<<"$words")"
    [ "$(wc -l <<<"$words")" -ge 10 ] && [ "$(wc -l <<<"$words")" -lt 20 ] || { echo "$(wc -l <<<"$words") commands"; return 1; }
    for word in $(sort -u <<<"$words"); do
        file=$(type -P "$word") || { [ "$(type -t "$word")" = builtin ] || { echo "$word is not there"; return 1; }; continue; }
        dpkg --search "$file" >/dev/null || { echo "$file is no package's"; return 1; }
    done
}

# follow NAME: carries out a block in the folder of the packages; what a command leaves running goes on.
follow() {
    block "$1" >"$minutes/$1"
    [ -s "$minutes/$1" ] || { echo "the README has no block $1"; return 1; }
    (cd "$work/packages" && set -e && . "$minutes/$1")
}

installs() {
    local said
    said=$(follow install) || { echo "$said"; return 1; }
    log "$said"
    equal "cards bound" 5 "$(grep -c 'Kernel driver in use: vfio-pci' <<<"$said")"
}

delivers() {
    local said
    said=$(follow see 2>&1) || { echo "$said"; return 1; }
    log "$said"
    contains "$said" '^delivering'
}

# The shell that started the KMSs ends them.
deliver_and_end() {
    cd "$work/packages" || return
    set -m
    . "$minutes/deliver"
    within 90 delivers || { tail -n 3 /tmp/kms-?.log; return 1; }
    . "$minutes/end"
}

listing >"$work/before"
check "README: the packages install and bind the cards" installs
check "README: it is less than 20 commands, all of Debian or of the packages" few_commands_of_packages
check "README: both services start, and the doctor finds nothing wrong" follow configure
block deliver >"$minutes/deliver"
block end >"$minutes/end"
check "README: status says that key is delivered, and the packages are purged" deliver_and_end
check "README: purge leaves nothing behind" nothing_left
check "README: purge leaves no unit behind" no_units_left
