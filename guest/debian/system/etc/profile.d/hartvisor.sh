# The terminal that the serial console is shown on.
if [ "$(tty)" = /dev/ttyS0 ] && [ -e /run/hartvisor/environment ]; then
    . /run/hartvisor/environment
    if [ "${COLUMNS:-0}" -gt 0 ]; then stty rows "$LINES" cols "$COLUMNS"; fi
    unset LINES COLUMNS COMMAND_TTY
fi
