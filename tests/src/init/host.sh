# What a KVM host's first process does.

services() {
    echo host >/proc/sys/kernel/hostname
    mount -t debugfs debug /sys/kernel/debug
    mount -t tracefs trace /sys/kernel/tracing
    mount -t bpf bpf /sys/fs/bpf
    mount -t cgroup2 cgroup /sys/fs/cgroup
}

start() { "/guests/$1/start"; }
