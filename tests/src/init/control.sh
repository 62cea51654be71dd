#!/bin/busybox sh
# The first process of dom0, or of a KVM host: brings up the hypervisor's services and the guests, then does what the
# lab says over a virtio port. What each hypervisor does in its own way is in /lab/hypervisor.sh: the functions
# `services` and `start`. /share is the run's folder, so that all that is written there outlives this machine.

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt /out /share /sbin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /root
mount -t devpts devpts /dev/pts # xl create waits in vain for a guest's console without it
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs out /out
mkdir -p /run/lab
while read -r module; do
    insmod "/lab/modules/$module.ko" || echo "lab: cannot load the module $module"
done </lab/modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /share || echo "lab: cannot mount the run's folder"

until [ -c "$(echo /dev/vport*p1)" ]; do sleep 0.05; done
exec 3<>"$(echo /dev/vport*p1)"
say() { echo "$*" >&3; }
say up

. /lab/hypervisor.sh
services
if ! sh -e /lab/init.sh; then say failed init; fi

while read -r guest; do
    start "$guest" </dev/null 3>&- || say failed "$guest"
done </lab/start
while read -r guest; do
    until grep -qs 'lab: the guest is up' "/share/console/guest-$guest.log"; do sleep 0.2; done
    say guest "$guest"
done </lab/start
say ready

# Each step leads a process group of its own, so that it can be stopped with all that it started.
run() {
    setsid sh -c 'echo $$ >/run/lab/step; exec sh -e "$1"' - "/lab/steps/$1.sh" \
        </dev/null >"/share/steps/$1.out" 2>"/share/steps/$1.err" 3>&-
    say done "$1" $?
}

# Unquoted: the patterns are to be expanded here.
collect() {
    for path in $(cat /lab/collect); do
        if [ -e "$path" ]; then cp -rL "$path" /share/collected/ || say uncollected "$path"; else say uncollected "$path"; fi
    done
    say collected
}

# Not done by the first process itself: that is told of the end of every process whose parent is gone, and a shell that
# is told of one while it reads forgets what it has read of the line. For the same reason, steps are nobody's children.
orders() {
    while read -r command argument <&3; do
        case $command in
            run) (run "$argument" &) ;;
            stop) kill -KILL "-$(cat /run/lab/step)" ;;
            collect) collect ;;
            *) break ;;
        esac
    done
}
orders &
wait $!
poweroff -f
