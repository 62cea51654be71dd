#!/bin/busybox sh
# The first process of a guest that is looked into from outside: it starts processes of known kinds, and writes down what
# the kernel says of itself and of them.

/bin/busybox mkdir -p /proc /sys /dev /tmp /disk /overlay /truth/processes
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
while read -r module; do
    insmod "/lab/modules/$module.ko"
done </lab/modules/order
until [ -b /dev/vdb ]; do sleep 0.05; done
mount -t ext4 -o ro /dev/vda /disk
mkdir -p /tmp/upper /tmp/work
mount -t overlay -o lowerdir=/disk,upperdir=/tmp/upper,workdir=/tmp/work overlay /overlay
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
# Tracing in an instance of its own takes a trampoline that the kernel generates.
mkdir /sys/kernel/tracing/instances/lab
echo do_nanosleep >/sys/kernel/tracing/instances/lab/set_ftrace_filter
echo function >/sys/kernel/tracing/instances/lab/current_tracer

/bin/hot >/dev/null &
mkdir -p /sys/fs/cgroup/system.slice/docker-0123456789abcdef.scope
/bin/crowd &
echo $! >/sys/fs/cgroup/system.slice/docker-0123456789abcdef.scope/cgroup.procs
chroot /overlay /usr/bin/openssl speed -seconds 1000 sha256 >/dev/null 2>&1 &
chroot /disk /usr/bin/openssl speed -seconds 1000 sha512 >/dev/null 2>&1 &
chroot /disk /bin/sleep 100000 &
# Most of what the CPUs do is in the kernel, on behalf of these.
/bin/calls &
/bin/calls &
/bin/calls &
/bin/calls &

# For a while, processes come and go all the time.
echo 'lab: busy'
end=$(($(date +%s) + 5))
while [ "$(date +%s)" -lt "$end" ]; do true | sh -c :; done
sleep 1

cat /proc/kallsyms >/truth/kallsyms
cat /proc/modules >/truth/modules
uname -r >/truth/release
for process in /proc/[0-9]*; do
    folder=/truth/processes/${process#/proc/}
    mkdir -p "$folder/task"
    cat "$process/maps" >"$folder/maps"
    cat "$process/cgroup" >"$folder/cgroup"
    for task in "$process"/task/*; do
        cat "$task/comm" >"$folder/task/${task##*/}"
    done
done 2>/dev/null
tar -c -f /dev/vdb -C /truth .
sync
# From here on nothing is started that would not be in the list.
echo "lab: processes" /proc/[0-9]*
while :; do read -r -t 1000 nothing </dev/console; done
