#!/bin/sh
# Waits until a screen that terminal.c plays shows a text, or shows it so many times.
#
#     shows OUT ORDERS TEXT [COUNT]
#
# Only what has changed is written to a terminal: so the screen is drawn anew (Ctrl-L) each time before it is looked at.
# Blanks are not written even then, so that TEXT, which is grep's, can have none.
# What does not come within two minutes, or SHOWS_TRIES seconds, is told, and is for the test to judge.
for try in $(seq "${SHOWS_TRIES:-120}"); do
    from=$(stat -c %s "$1" 2>/dev/null || echo 0)
    printf 'keys \f\n' >"$2"
    sleep 1
    [ "$(tail -c +$((from + 1)) "$1" | grep -o -- "$3" | wc -l)" -ge "${4:-1}" ] && exit
done
echo "$3 is not shown"
