#!/bin/sh
# The options that tell xenoscope of each guest's program, hot.c.
for guest in /guests/*; do
    echo "--guest-exe ${guest##*/}=$guest/rootfs/bin/hot"
done
