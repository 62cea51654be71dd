"""What it costs to draw: `xenoscope top` on 1,000 domains and 100,000 functions beside other programs on a table of 1,000
processes, four times a second on a terminal of 200x60: top.py XENOSCOPE RECORDING SECONDS.

Of xenoscope, the thread that draws is told apart from the one that takes samples in; the others collect and draw in one, so
that for them all is shown.
"""

import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
# What each takes to come up is not counted.
WARM_UP = 4


def cpu_s(path):
    fields = open(path).read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def threads(pid):
    """CPU time of each thread, the one that draws as the first."""
    tasks = sorted(os.listdir(f"/proc/{pid}/task"), key=lambda tid: int(tid) != pid)
    return [cpu_s(f"/proc/{pid}/task/{tid}/stat") for tid in tasks]


def measure(command, seconds):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LANG="C.UTF-8")
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    os.kill(pid, signal.SIGWINCH)
    written = 0

    def read():
        nonlocal written
        try:
            while data := os.read(terminal, 1 << 16):
                written += len(data)
        except OSError:
            pass  # It has ended.

    threading.Thread(target=read, daemon=True).start()
    time.sleep(WARM_UP)
    before, written_before, began = threads(pid), written, time.monotonic()
    time.sleep(seconds)
    after, passed = threads(pid), time.monotonic() - began
    bytes_s = (written - written_before) / passed
    peak = next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")).split()[1]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    draws, all_of_it = (after[0] - before[0]) / passed, (sum(after) - sum(before)) / passed
    return draws, all_of_it, bytes_s, int(peak) / 1024


def main(xenoscope, recording, seconds):
    crowd = [subprocess.Popen(["sleep", "600"]) for _ in range(1000)]
    try:
        print("                     draws    all of it    written/s    memory")
        top = [xenoscope, "top", "--replay", recording, "--refresh", "0.25", "--no-mouse"]
        others = {"bottom": ["btm", "--rate", "250ms", "-e", "--default_widget_type", "process"], "htop": ["htop", "-d", "3"]}
        programs = {"xenoscope top": top} | {name: command for name, command in others.items() if shutil.which(command[0])}
        results = {}
        for name, command in programs.items():
            draws, whole, bytes_s, memory = results[name] = measure(command, seconds)
            share = f"{draws:8.2%}" if name == "xenoscope top" else "       -"
            print(f"{name:<16} {share} {whole:12.2%} {bytes_s / 1024:9.1f} KiB {memory:6.0f} MB", flush=True)
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    if results["xenoscope top"][0] >= 0.02:
        sys.exit("drawing costs more than 2 % of a CPU")


main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
