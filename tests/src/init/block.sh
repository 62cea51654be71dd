#!/bin/busybox sh
# Tells the block backend which device a guest's disk is. Stands in for the tools' own script, which wants far more
# than this image has.

PATH=/usr/sbin:/bin
if [ "$1" = add ]; then
    device=$(xenstore-read "$XENBUS_PATH/params")
    xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$device")" "$XENBUS_PATH/hotplug-status" connected
fi
