#!/bin/busybox sh
# The first process of a guest whose root is on a disk: finds the disk and goes there.

/bin/busybox mkdir -p /proc /dev /root
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod "/lab/modules/$module.ko"
done </lab/modules/order
read -r device </lab/device
until [ -b "$device" ]; do /bin/busybox sleep 0.05; done
/bin/busybox mount -t ext4 "$device" /root
exec /bin/busybox switch_root /root /init
