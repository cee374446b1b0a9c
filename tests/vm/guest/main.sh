#!/bin/bash
# The course of the virtual machine test. First it follows the README. Then it installs the packages after writing their configuration, and only reads,
# starts programs of its own beside the service, and kills what is to be killed: it writes nothing under /sys or /dev,
# changes no mode and starts no unit that the package should have started.
set -u
cd "$(dirname "$0")" || exit 1
card_1=0000:01:00.0 card_2=0000:02:00.0 card_3=0000:03:00.0 spare=0000:04:00.0 shared=0000:05:00.0
. ./lib.sh
for part in first_minutes install setup effects keys confinement tls trouble scenarios end; do
    log "part: $part"
    # A part that breaks off leaves its checks unreported, and the others go on.
    . "./$part.sh"
done
# Its answer is waited for: what is still on its way when the machine goes down is lost.
ask finished
