//! Processes and their threads, and which of them an address space belongs to.

use profile::{AddressSpaceRoot, GuestVirtual};

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError, ReadError},
    kernel::Kernel,
    look::{GuestAddress, Look, Space},
    memory::{Frames, GuestPhysical},
    page_tables::PageTables,
};

const MAX_TASKS: usize = 1 << 20;
/// `TASK_COMM_LEN`.
const MAX_COMM: usize = 16;
/// The bits of CR3 that are an address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Under page-table isolation, the bit that tells a process's root in user mode from that in kernel mode
/// (`PTI_USER_PGTABLE_BIT`).
const USER_ROOT: u64 = 1 << 12;

/// Where a task's structure has what is asked of it.
#[derive(Debug)]
pub(crate) struct TaskLayout {
    tasks: u64,
    signal: u64,
    threads: u64,
    thread_link: u64,
    pid: u64,
    tgid: u64,
    comm: u64,
    start_time: u64,
    executed: u64,
    mm: u64,
    pgd: u64,
    /// Of a page's structure.
    private: Result<u64, LayoutError>,
    page: Result<u64, LayoutError>,
}

impl TaskLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        let task = |member| btf.offset("task_struct", member);
        Ok(Self {
            tasks: task("tasks")?,
            signal: task("signal")?,
            threads: btf.offset("signal_struct", "thread_head")?,
            thread_link: task("thread_node")?,
            pid: task("pid")?,
            tgid: task("tgid")?,
            comm: task("comm")?,
            start_time: task("start_time")?,
            executed: task("self_exec_id")?,
            mm: task("mm")?,
            pgd: btf.offset("mm_struct", "pgd")?,
            private: btf.offset("page", "private"),
            page: btf.size("page"),
        })
    }
}

/// A thread: of a process, or of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its own number (`gettid`), of the guest's first PID namespace.
    pub pid: u32,
    /// Its process's number (`getpid`); that thread of a process which has the same number came first.
    pub tgid: u32,
    /// Its name: untrusted text.
    pub comm: String,
    /// When it was started, in nanoseconds of the guest's monotonic clock: tells two tasks apart that had the same
    /// number one after the other.
    pub start_time: u64,
    /// A number that grows each time that it executes another program, which its children have from it.
    pub executed: u32,
    /// Its page tables in kernel mode; none for a thread of the kernel, which borrows those of whatever ran before.
    pub root: Option<AddressSpaceRoot>,
    /// Its page tables in user mode, if they are others.
    pub user_root: Option<AddressSpaceRoot>,
    pub(crate) structure: GuestVirtual,
    /// What describes its address space, or null.
    pub(crate) mm: GuestVirtual,
}

/// The tasks at the time of a look.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tasks: Vec<Task>,
    /// Indices of those with page tables of their own, by root; the first of each root.
    by_root: Vec<(u64, u32)>,
    isolated: bool,
}

impl Tasks {
    fn new(tasks: Vec<Task>) -> Self {
        let mut by_root = Vec::new();
        for (index, task) in (0..).zip(&tasks) {
            by_root.extend([task.root, task.user_root].into_iter().flatten().map(|root| (root.0, index)));
        }
        // Stable, so that the first task of a root stays first: the leader before its threads.
        by_root.sort_by_key(|&(root, _)| root);
        by_root.dedup_by_key(|(root, _)| *root);
        // With isolation, roots come in pairs that begin at even frames; without, any frame serves.
        let isolated = tasks.iter().filter_map(|task| task.root).all(|root| root.0 & USER_ROOT == 0);
        Self { tasks, by_root, isolated }
    }

    /// All of them: threads follow the first thread of their process, and what idles on the first CPU comes first.
    pub fn iter(&self) -> std::slice::Iter<'_, Task> {
        self.tasks.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The process that a CR3 belongs to, control bits and all; its first thread.
    ///
    /// That holds for samples in user mode. A CPU that idles, or runs a thread of the kernel, keeps the page tables of
    /// whichever process ran before.
    pub fn process(&self, cr3: u64) -> Option<&Task> {
        let root = cr3 & FRAME;
        self.with_root(root).or_else(|| self.isolated.then(|| self.with_root(root & !USER_ROOT))?)
    }

    fn with_root(&self, root: u64) -> Option<&Task> {
        let index = self.by_root.binary_search_by_key(&root, |&(root, _)| root).ok()?;
        self.tasks.get(self.by_root[index].1 as usize)
    }
}

impl Kernel {
    /// The tasks that there are now.
    ///
    /// In a guest that runs, one that ends at this moment can lead astray; asked again, it is told.
    pub fn tasks(&self, look: &Look<'_>) -> Result<Tasks, GuestError> {
        let layout = self.layout(|layouts| &layouts.tasks)?;
        let space = self.space(look, "the list of tasks");
        let first = self.places.init_task.ok_or(GuestError::NoSymbol("init_task"))?;
        let mut leaders = vec![first];
        leaders.extend(space.list(first.plus(layout.tasks), layout.tasks, MAX_TASKS)?);
        let mut tasks = Vec::with_capacity(leaders.len());
        for leader in leaders {
            let signal = space.pointer(leader.plus(layout.signal))?;
            let left = MAX_TASKS - tasks.len();
            let threads = match space.list(signal.plus(layout.threads), layout.thread_link, left) {
                Ok(threads) if !threads.is_empty() => threads,
                Err(GuestError::Exhausted(exhausted)) => return Err(exhausted.into()),
                // One that ends at this moment has left the list of its own threads.
                _ => vec![leader],
            };
            for thread in threads {
                space.budget().memory(size_of::<Task>() as u64)?;
                tasks.push(self.task(look, &space, layout, thread)?);
            }
        }
        Ok(Tasks::new(tasks))
    }

    fn task(
        &self,
        look: &Look<'_>,
        space: &Space<'_>,
        layout: &TaskLayout,
        structure: GuestVirtual,
    ) -> Result<Task, GuestError> {
        let mm = space.pointer(structure.plus(layout.mm))?;
        let (mut root, mut user_root) = (None, None);
        if !mm.is_null() {
            let pgd = space.pointer(mm.plus(layout.pgd))?;
            root = self.root(look, pgd)?;
            if look.memory().frames() == Frames::Machine {
                user_root = self.user_root_of_pv(look, space, layout, pgd)?;
            }
        }
        Ok(Task {
            pid: space.u32(structure.plus(layout.pid))?,
            tgid: space.u32(structure.plus(layout.tgid))?,
            comm: space.text(structure.plus(layout.comm), MAX_COMM)?,
            start_time: space.u64(structure.plus(layout.start_time))?,
            // Twice as wide since 5.7.
            executed: space.u32(structure.plus(layout.executed))?,
            root,
            user_root,
            structure,
            mm,
        })
    }

    /// The task whose structure is at an address.
    pub(crate) fn task_at(&self, look: &Look<'_>, structure: GuestVirtual) -> Result<Task, GuestError> {
        let layout = self.layout(|layouts| &layouts.tasks)?;
        self.task(look, &self.space(look, "a task"), layout, structure)
    }

    /// Whether a task is still there, and all that was told of it still holds.
    pub fn is_still(&self, look: &Look<'_>, task: &Task) -> bool {
        self.task_at(look, task.structure).is_ok_and(|now| now == *task)
    }

    /// Where a root table that the kernel has mapped really is.
    fn root(&self, look: &Look<'_>, pgd: GuestVirtual) -> Result<Option<AddressSpaceRoot>, GuestError> {
        match look.translate(self.tables, pgd) {
            Ok(found) => Ok(Some(AddressSpaceRoot(found.address.0 & FRAME))),
            Err(ReadError::Exhausted(exhausted)) => Err(exhausted.into()),
            Err(_) => Ok(None),
        }
    }

    /// A PV domain has a second root for user mode, noted at the page of the first (`xen_get_user_pgd`).
    fn user_root_of_pv(
        &self,
        look: &Look<'_>,
        space: &Space<'_>,
        layout: &TaskLayout,
        pgd: GuestVirtual,
    ) -> Result<Option<AddressSpaceRoot>, GuestError> {
        let (Ok(private), Ok(size)) = (&layout.private, &layout.page) else { return Ok(None) };
        let frame = pgd.minus(self.places.direct_map.0).0 >> 12;
        let page = self.places.page_array.plus(frame.wrapping_mul(*size));
        match space.pointer(page.plus(*private)) {
            Ok(user_pgd) if !user_pgd.is_null() => self.root(look, user_pgd),
            Err(GuestError::Exhausted(exhausted)) => Err(exhausted.into()),
            _ => Ok(None),
        }
    }

    /// The page tables of a process, for reading what it has in memory.
    pub fn page_tables_of(&self, task: &Task) -> Option<PageTables> {
        let root = GuestPhysical(task.root?.0);
        Some(PageTables { root, levels: self.tables.levels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(roots: &[u64]) -> Tasks {
        let task = |(pid, &root): (u32, &u64)| Task {
            pid,
            tgid: pid,
            comm: String::new(),
            start_time: 0,
            executed: 0,
            root: Some(AddressSpaceRoot(root)),
            user_root: None,
            structure: GuestVirtual(0),
            mm: GuestVirtual(1),
        };
        Tasks::new((0..).zip(roots).map(task).collect())
    }

    #[test]
    fn control_bits_and_isolation_are_seen_through() {
        let isolated = tasks(&[0x2000, 0x4000, 0x4000]);
        let pid = |cr3| isolated.process(cr3).map(|task| task.pid);
        assert_eq!(pid(1 << 63 | 0x2806), Some(0));
        assert_eq!(pid(0x3001), Some(0), "the root in user mode");
        assert_eq!(pid(0x5000), Some(1), "threads share a root");
        assert_eq!(pid(0x6000), None);
    }

    #[test]
    fn without_isolation_neighbours_are_strangers() {
        let plain = tasks(&[0x2000, 0x7000]);
        let pid = |cr3| plain.process(cr3).map(|task| task.pid);
        assert_eq!(pid(0x7000), Some(1));
        assert_eq!(pid(0x3000), None);
    }
}
