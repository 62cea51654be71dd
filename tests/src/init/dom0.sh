# What dom0's first process does for Xen.

services() {
    echo dom0 >/proc/sys/kernel/hostname
    mkdir -p /run/xen /run/xenstored /run/lock /var/lib/xen /var/lib/xenstored /var/log/xen
    ln -s /run /var/run
    ln -s /run/lock /var/lock
    mount -t xenfs xenfs /proc/xen
    xenstored --pid-file /run/xenstored.pid
    xen-init-dom0
    xenconsoled --pid-file=/run/xenconsoled.pid --log=guest --log-dir=/share/console
    [ -s /lab/pin ] && xl vcpu-pin Domain-0 all "$(cat /lab/pin)"
}

start() {
    xl create "/guests/$1/xl.cfg" || return
    # dom0 hands an HVM guest its kernel byte by byte: not while the others' loads are in the way, and from another
    # CPU than the guest's, wherever that is to run later.
    if grep -q '^type = "hvm"' "/guests/$1/xl.cfg"; then
        until grep -qs 'lab: the guest is up' "/share/console/guest-$1.log"; do sleep 0.2; done
        if [ -s "/guests/$1/pin" ]; then xl vcpu-pin "$1" all "$(cat "/guests/$1/pin")"; fi
    fi
}
