//! Are processes found, with their names, their containers and what they have mapped?

use std::collections::{BTreeMap, BTreeSet};

use guest::{Content, Mapping};

use crate::machines;

/// A mapping as a line of `/proc/PID/maps`, without the device.
fn maps_line(mapping: &Mapping) -> String {
    let flag = |set, letter| if set { letter } else { '-' };
    let access = [
        flag(mapping.readable, 'r'),
        flag(mapping.writable, 'w'),
        flag(mapping.executable, 'x'),
        if mapping.shared { 's' } else { 'p' },
    ];
    let (offset, inode, name) = match &mapping.content {
        Content::File(piece) => (piece.offset, piece.inode, piece.path.replace('\n', "\\012")),
        Content::Special(name) => (0, 0, name.clone()),
        Content::Heap => (0, 0, "[heap]".to_owned()),
        Content::Stack => (0, 0, "[stack]".to_owned()),
        Content::Anonymous => (0, 0, String::new()),
    };
    let access: String = access.iter().collect();
    format!("{:08x}-{:08x} {access} {offset:08x} {inode} {name}", mapping.range.start, mapping.range.end)
}

/// The guest's line without the device and the padding; none for what is no mapping of the process's own.
fn guest_line(line: &str) -> Option<String> {
    let mut fields = line.splitn(6, ' ');
    let mut field = || fields.next();
    let (range, access, offset, _device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let name = field().unwrap_or_default().trim_start();
    (name != "[vsyscall]").then(|| format!("{range} {access} {offset} {inode} {name}"))
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn all_processes_and_threads_are_those_that_the_guest_lists() {
    for machine in machines::all() {
        let look = machine.look();
        let tasks = machine.kernel(&look).tasks(&look).unwrap();
        let mut found: BTreeMap<u32, BTreeMap<u32, &str>> = BTreeMap::new();
        // What idles on the first CPU has no number that others see.
        for task in tasks.iter().filter(|task| task.pid != 0) {
            found.entry(task.tgid).or_default().insert(task.pid, &task.comm);
        }
        let is_worker = |pid: &u32| found.get(pid).is_some_and(|process| process[pid].starts_with("kworker"));
        let expected: BTreeSet<u32> = machine.snapshot.processes.iter().copied().collect();
        let pids: BTreeSet<u32> = found.keys().copied().collect();
        // The kernel's own workers come and go while the list is printed.
        let strangers: Vec<_> = pids.symmetric_difference(&expected).filter(|pid| !is_worker(pid)).collect();
        assert!(strangers.is_empty(), "{}: only in memory, or only in the list: {strangers:?}", machine.name);

        let mut threads = 0;
        for (&pid, process) in &found {
            let said = machine.truth.threads(pid);
            if said.is_empty() && is_worker(&pid) {
                continue;
            }
            for (tid, comm) in process {
                let said = said.get(tid).unwrap_or_else(|| panic!("{}: {pid}/{tid} {comm:?}", machine.name));
                // The kernel adds to a worker's name what it works at, and shows more of its own threads' names than 15
                // characters.
                let same = said == comm
                    || is_worker(&pid) && said.starts_with(comm)
                    || comm.len() == 15 && said.starts_with(comm);
                assert!(same, "{}: {pid}/{tid} is {comm:?}, the guest says {said:?}", machine.name);
                threads += 1;
            }
            assert_eq!(said.len(), process.len(), "{}: threads of {pid}", machine.name);
        }
        machine.figure(
            "threads with equal numbers and names",
            format_args!("{threads} of {} processes", found.len()),
        );
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn all_mappings_and_control_groups_are_those_that_the_guest_lists() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let (mut lines, mut processes) = (0, 0);
        let mut containers = 0;
        for task in kernel.tasks(&look).unwrap().iter().filter(|task| task.pid != 0 && task.pid == task.tgid)
        {
            if !machine.snapshot.processes.contains(&task.pid) || task.comm.starts_with("kworker") {
                continue;
            }
            let cgroup = kernel.cgroup(&look, task).unwrap();
            assert_eq!(Some(&cgroup), machine.truth.cgroup(task.pid).as_ref(), "{}: {task:?}", machine.name);
            containers += usize::from(cgroup == "/system.slice/docker-0123456789abcdef.scope");
            let found =
                kernel.mappings(&look, task).unwrap_or_else(|e| panic!("{}: {e} {task:?}", machine.name));
            let found: Vec<String> = found.iter().map(maps_line).collect();
            let expected: Vec<String> =
                machine.truth.maps(task.pid).iter().filter_map(|line| guest_line(line)).collect();
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected, "{}: {} {:?}", machine.name, task.pid, task.comm);
            }
            assert_eq!(found.len(), expected.len(), "{}: {} {:?}", machine.name, task.pid, task.comm);
            lines += found.len();
            processes += usize::from(!found.is_empty());
        }
        assert_eq!(containers, 1, "one process was put into a container");
        machine.figure("equal lines of maps", format_args!("{lines} of {processes} processes"));
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn samples_in_user_mode_belong_to_a_process_that_has_their_code() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let tasks = kernel.tasks(&look).unwrap();
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        for sample in machine.snapshot.registers.iter().filter(|sample| sample.cpl == 3) {
            let task = tasks.process(sample.cr3).unwrap_or_else(|| panic!("{}: {sample:x?}", machine.name));
            let mappings = kernel.mappings(&look, task).unwrap();
            let mapping = mappings.iter().find(|mapping| mapping.range.contains(&sample.rip));
            assert!(
                mapping.is_some_and(|mapping| mapping.executable),
                "{}: {sample:x?} {task:?}",
                machine.name
            );
            *names.entry(task.comm.clone()).or_default() += 1;
        }
        assert!(!names.is_empty(), "{}: no sample was in user mode", machine.name);
        machine.figure("samples in user mode, all in code of their process", format_args!("{names:?}"));
    }
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn the_current_task_is_that_whose_page_tables_a_cpu_has() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let tasks = kernel.tasks(&look).unwrap();
        // Memory is as it was when the last registers were read.
        let cpus = machine.snapshot.registers.iter().map(|sample| sample.cpu).max().unwrap() as usize + 1;
        for sample in machine.snapshot.registers.iter().rev().take(cpus) {
            let current = kernel.current_task(&look, sample.cpu).unwrap();
            assert!(
                current.pid == 0 || tasks.iter().any(|task| *task == current),
                "{}: {current:?}",
                machine.name
            );
            if sample.cpl == 3 {
                assert_eq!(
                    Some(current.tgid),
                    tasks.process(sample.cr3).map(|task| task.tgid),
                    "{}",
                    machine.name
                );
            }
            machine.figure(
                "current task",
                format_args!("CPU {}, level {}: {}", sample.cpu, sample.cpl, current.comm),
            );
        }
    }
}
