#!/bin/busybox sh
# Writes the kernel's own symbol table to a raw disk. Modules, which lie elsewhere on each boot, are left out.

/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /bin/busybox insmod "/lab/modules/$module.ko"
done </lab/modules/order
until [ -b /dev/vda ]; do /bin/busybox sleep 0.05; done
/bin/busybox grep -v ']$' /proc/kallsyms >/dev/vda
/bin/busybox sync
/bin/busybox poweroff -f
