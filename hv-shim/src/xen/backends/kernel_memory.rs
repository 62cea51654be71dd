//! Dom0's own kernel, as it shows itself to root (`/proc/kcore`): where each thread has its stack.

use std::{collections::BTreeSet, fs, os::unix::fs::FileExt};

use guest::{Btf, LayoutError};

use crate::own_core::KernelCore;

/// The size of a kernel stack on x86-64 (`THREAD_SIZE`).
pub(super) const STACK_BYTES: u64 = 16 << 10;

/// More tasks than a kernel has numbers for: a list that changes under way must end.
const MOST_TASKS: usize = 1 << 22;

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's memory.
pub(super) struct KernelMemory {
    core: KernelCore,
    layout: Layout,
    init_task: u64,
}

/// Where a task's structure has what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    tasks: u64,
    pid: u64,
    stack: u64,
    signal: u64,
    threads: u64,
    thread_link: u64,
}

impl Layout {
    fn of(types: &Btf) -> Result<Self, LayoutError> {
        let task = |member| types.offset("task_struct", member);
        Ok(Self {
            tasks: task("tasks")?,
            pid: task("pid")?,
            stack: task("stack")?,
            signal: task("signal")?,
            threads: types.offset("signal_struct", "thread_head")?,
            thread_link: task("thread_node")?,
        })
    }
}

impl KernelMemory {
    /// Opens it, or says why not. `symbols` is the text of `/proc/kallsyms`.
    pub(super) fn open(symbols: &str) -> Result<Self, String> {
        let init_task = init_task(symbols).ok_or("/proc/kallsyms does not tell where they are")?;
        let types = fs::read(TYPES).map_err(|error| format!("{TYPES}: {error}"))?;
        let layout = Btf::of_kernel(&types).and_then(|types| Layout::of(&types));
        let layout = layout.map_err(|error| format!("{TYPES}: {error}"))?;
        let core = KernelCore::open().map_err(|error| format!("{}: {error}", KernelCore::PATH))?;
        Ok(Self { core, layout, init_task })
    }

    /// Where threads have their stacks: those that `wanted` gives for a process, with their process.
    pub(super) fn stacks<'a>(&self, wanted: impl Fn(u32) -> Option<&'a BTreeSet<u32>>) -> Vec<(u32, u64)> {
        stacks(self.layout, self.init_task, |address| self.word(address), wanted)
    }

    fn word(&self, address: u64) -> Option<u64> {
        let (file, offset) = self.core.place(address)?;
        let mut word = [0; 8];
        file.read_exact_at(&mut word, offset).ok()?;
        Some(u64::from_le_bytes(word))
    }
}

fn init_task(symbols: &str) -> Option<u64> {
    let line = symbols.lines().find(|line| line.ends_with(" init_task"))?;
    u64::from_str_radix(line.split_once(' ')?.0, 16).ok().filter(|&address| address != 0)
}

/// Walks the processes, and the threads of those that are wanted.
fn stacks<'a>(
    layout: Layout,
    init_task: u64,
    word: impl Fn(u64) -> Option<u64>,
    wanted: impl Fn(u32) -> Option<&'a BTreeSet<u32>>,
) -> Vec<(u32, u64)> {
    let pid = |task: u64| word(task.wrapping_add(layout.pid)).map(|pid| pid as u32);
    let mut found = Vec::new();
    for process in list(init_task.wrapping_add(layout.tasks), &word) {
        let process = process.wrapping_sub(layout.tasks);
        let Some((number, threads)) = pid(process).and_then(|number| Some((number, wanted(number)?))) else {
            continue;
        };
        let Some(signal) = word(process.wrapping_add(layout.signal)) else { continue };
        for thread in list(signal.wrapping_add(layout.threads), &word) {
            let thread = thread.wrapping_sub(layout.thread_link);
            let stack = word(thread.wrapping_add(layout.stack)).filter(|&stack| stack != 0);
            if pid(thread).is_some_and(|number| threads.contains(&number)) {
                found.extend(stack.map(|stack| (number, stack)));
            }
        }
    }
    found
}

/// The entries of a list, up to where it comes back to its head, or leads nowhere.
fn list(head: u64, word: impl Fn(u64) -> Option<u64>) -> impl Iterator<Item = u64> {
    let next = move |&entry: &u64| word(entry).filter(|&next| next != head);
    std::iter::successors(Some(head), next).skip(1).take(MOST_TASKS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const LAYOUT: Layout = Layout { tasks: 0, pid: 16, stack: 24, signal: 32, threads: 40, thread_link: 48 };

    /// Processes of two threads each at multiples of 0x1000, in a list that begins with the idle task; the second thread
    /// has its process's number plus one.
    fn kernel(pids: &[u64]) -> HashMap<u64, u64> {
        let mut words = HashMap::new();
        let all = [&[0], pids].concat();
        for (at, &pid) in all.iter().enumerate() {
            let task = 0x1000 * (at as u64 + 1);
            let next = 0x1000 * ((at as u64 + 1) % all.len() as u64 + 1);
            let (second, signal) = (task + 0x400, task + 0x800);
            words.extend([(task, next), (task + 16, pid), (task + 24, task << 8), (task + 32, signal)]);
            words.extend([(second + 16, pid + 1), (second + 24, second << 8)]);
            words.extend([(signal + 40, task + 48), (task + 48, second + 48), (second + 48, signal + 40)]);
        }
        words
    }

    #[test]
    fn stacks_are_those_of_the_threads_that_are_wanted() {
        let words = kernel(&[10, 20, 30]);
        let (both, one) = (BTreeSet::from([10, 11]), BTreeSet::from([30]));
        let wanted = |pid| match pid {
            10 => Some(&both),
            30 => Some(&one),
            _ => None,
        };
        let found = stacks(LAYOUT, 0x1000, |address| words.get(&address).copied(), wanted);
        assert_eq!(found, [(10, 0x20_0000), (10, 0x24_0000), (30, 0x40_0000)]);
    }

    #[test]
    fn lists_that_lead_nowhere_or_round_in_circles_end() {
        let mut words = kernel(&[10, 20]);
        words.insert(0x2000, 0xbad);
        let threads = BTreeSet::from([10]);
        let read = |address| words.get(&address).copied();
        assert_eq!(stacks(LAYOUT, 0x1000, read, |pid| (pid == 10).then_some(&threads)).len(), 1);
        assert_eq!(list(0x10, |_| Some(0x20)).take(10_000_000).count(), MOST_TASKS);
    }

    #[test]
    fn the_first_task_is_found_among_symbols() {
        assert_eq!(init_task("ffffffff8261a940 D init_task\n"), Some(0xffff_ffff_8261_a940));
        assert_eq!(init_task("0000000000000000 D init_task\n"), None);
        assert_eq!(init_task("ffffffff8261a940 D my_init_task\n"), None);
    }
}
