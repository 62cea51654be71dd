//! The process that looks into one guest (`confined`), as the recorder has it: started, asked, served, ended.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use guest::{Frames, GuestMemory, GuestPhysical};

use crate::confined::messages::{
    self, About, Answer, MOST_PAGES, PAGE, PageNumbers, Question, Said, send, send_pages,
};

/// For how long an answer is waited for: longer than a look may take by the process's own clock.
const PATIENCE: Duration = Duration::from_secs(40);

/// How often it is looked meanwhile whether that time is over.
const GLANCE: Duration = Duration::from_secs(1);

/// A process that is asked about one guest.
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    patience: Duration,
    /// What pages are sent from: memory that is taken anew each time costs more than the pages.
    room: Vec<u8>,
    /// Whether it is asked how callers are found, too.
    callers: bool,
}

impl Process {
    /// Starts `command`, whose first word is the program.
    pub(crate) fn start(command: &[OsString], callers: bool) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let (socket, its) = UnixStream::pair()?;
        socket.set_read_timeout(Some(GLANCE))?;
        socket.set_write_timeout(Some(GLANCE))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            // Giving back memory of an arena of another thread than the first, glibc opens a file, which it must not.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(OwnedFd::from(its))
            .stdout(Stdio::null())
            // What it would say there is the guest's word.
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, socket, patience: PATIENCE, room: Vec::new(), callers })
    }

    /// Asks, and reads the guest's pages for it until it answers; none of them once the guest is gone.
    pub(crate) fn ask(
        &mut self,
        about: About,
        memory: &dyn GuestMemory,
        gone: &AtomicBool,
    ) -> io::Result<Answer> {
        let frames = match memory.frames() {
            Frames::Guest => PageNumbers::Guest,
            Frames::Machine => PageNumbers::Machine,
        };
        let mut socket = Timed { socket: &self.socket, deadline: Instant::now() + self.patience };
        send(&mut socket, &Question { frames, callers: self.callers, about })?;
        loop {
            match messages::receive(&mut socket)? {
                Said::Answer(answer) => return Ok(*answer),
                Said::Wants(pages) if pages.len() <= MOST_PAGES => {
                    let place = |page: u64| Some(GuestPhysical(page.checked_mul(PAGE as u64)?));
                    let places: Vec<GuestPhysical> = pages.iter().filter_map(|&page| place(page)).collect();
                    if !gone.load(Ordering::Relaxed) {
                        memory.announce(&places);
                    }
                    send_pages(&mut socket, &mut self.room, &pages, |page, bytes| {
                        let there = |place| memory.read(place, bytes).is_ok();
                        !gone.load(Ordering::Relaxed) && place(page).is_some_and(there)
                    })?;
                }
                Said::Wants(_) => {
                    return Err(io::Error::other("it asked for more pages at once than it may"));
                }
            }
        }
    }

    /// How it ended; ends it if it has not.
    pub(super) fn end(mut self) -> io::Result<ExitStatus> {
        // Fails only where it has ended by itself.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that is given up within [`GLANCE`] of some moment, however little comes in between.
struct Timed<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn until_deadline(&self, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.until_deadline(|| (&mut &*self.socket).read(bytes))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_deadline(|| (&mut &*self.socket).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, env, fs, os::unix::process::ExitStatusExt};

    use guest::{Kernel, Limits, Look, Missing};
    use symbolizer::SymbolTable;

    use super::*;
    use crate::{
        confined::{self, messages::Lack},
        synthetic::{Linux, Shape},
    };

    const SERVE: &str = "guests::process::tests::serves_those_who_started_it";

    /// This program, to be asked about a guest.
    fn start() -> Process {
        let program = env::current_exe().unwrap().into_os_string();
        let arguments = ["--exact", SERVE, "--ignored", "--nocapture"].map(OsString::from);
        Process::start(&[&[program][..], &arguments].concat(), true).unwrap()
    }

    #[test]
    #[ignore = "started by the tests beside it, with a socket for standard input"]
    fn serves_those_who_started_it() {
        confined::serve().unwrap();
    }

    fn ask(process: &mut Process, memory: &dyn GuestMemory, about: About) -> io::Result<Answer> {
        process.ask(about, memory, &AtomicBool::new(false))
    }

    #[test]
    fn it_finds_what_is_found_without_it() {
        let linux = Linux::new(Shape::PLAIN);
        let look = Look::new(&linux.ram, Limits::default());
        let kernel = Kernel::find(&look, linux.cr3).unwrap();
        let mut process = start();

        let Answer::Kernel(Ok(found)) = ask(&mut process, &linux.ram, About::Kernel(linux.cr3)).unwrap()
        else {
            panic!("no kernel")
        };
        assert_eq!((found.is_new, &*found.release), (true, kernel.release()));
        assert_eq!(found.slide, kernel.slide());
        assert_eq!(found.all_symbols as usize, kernel.symbols().len());
        let all = kernel.symbols().iter().map(|symbol| (symbol.address.0, symbol.kind, symbol.name, None));
        let all = SymbolTable::from_rows(all).unwrap();
        let table = SymbolTable::from_rows(found.symbols.iter()).unwrap();
        for symbol in kernel.symbols().iter() {
            for address in [symbol.address.0 - 1, symbol.address.0, symbol.address.0 + 5] {
                assert_eq!(table.lookup(address), all.lookup(address), "{address:#x}");
            }
        }
        let again = ask(&mut process, &linux.ram, About::Kernel(linux.cr3)).unwrap();
        assert!(matches!(again, Answer::SameKernel), "{again:?}");

        let Answer::Process(Some(first)) =
            ask(&mut process, &linux.ram, About::Process(linux.user_cr3)).unwrap()
        else {
            panic!("no process")
        };
        assert_eq!((first.task.pid, &*first.task.name), (100, "server"));
        assert_eq!(
            first.task.container,
            kernel.cgroup(&look, kernel.tasks(&look).unwrap().process(linux.cr3).unwrap()).ok()
        );
        let functions: usize =
            first.images.iter().filter_map(|(_, image)| Some(image.as_ref()?.functions().count())).sum();
        assert!(functions > 0);
        let Answer::Process(Some(second)) = ask(&mut process, &linux.ram, About::Process(linux.cr3)).unwrap()
        else {
            panic!("no process")
        };
        assert_eq!(second.mappings.len(), first.mappings.len());
        assert!(second.images.is_empty(), "they were handed out");
    }

    /// Memory that counts how often pages of it are asked for.
    struct Counted<'a>(&'a dyn GuestMemory, Cell<u32>);

    impl GuestMemory for Counted<'_> {
        fn read(&self, address: GuestPhysical, bytes: &mut [u8]) -> Result<(), Missing> {
            self.0.read(address, bytes)
        }

        fn announce(&self, _pages: &[GuestPhysical]) {
            self.1.set(self.1.get() + 1);
        }
    }

    #[test]
    fn what_was_asked_before_is_asked_for_in_one_piece() {
        let linux = Linux::new(Shape::PLAIN);
        let memory = Counted(&linux.ram, Cell::new(0));
        let mut process = start();
        let mut count = |about| {
            memory.1.set(0);
            let answer = ask(&mut process, &memory, about).unwrap();
            (answer, memory.1.get())
        };
        count(About::Kernel(linux.cr3));
        count(About::Process(linux.user_cr3));
        for about in
            [About::StillThere(linux.user_cr3), About::Kernel(linux.cr3), About::Task(linux.user_cr3)]
        {
            let ((_, first), (answer, second)) = (count(about), count(about));
            let is_there =
                matches!(answer, Answer::StillThere(true) | Answer::SameKernel | Answer::Task(Some(_)));
            assert!(is_there, "{answer:?}");
            // The list of tasks was walked for the kernel, too.
            assert!(first > if matches!(about, About::Task(_)) { 0 } else { 3 }, "{first}");
            assert_eq!(second, 1, "{about:?}");
        }
    }

    /// A kernel is found before it has made its list of tasks, or while that changes: the processes come later.
    #[test]
    fn processes_that_could_not_be_told_at_first_are_told_later() {
        let mut linux = Linux::new(Shape::PLAIN);
        let without = |linux: &mut Linux, page| {
            linux.ram.missing = vec![page];
            let look = Look::new(&linux.ram, Limits::default());
            Kernel::find(&look, linux.cr3).is_ok_and(|kernel| kernel.tasks(&look).is_err())
        };
        let pages = linux.ram.size() / PAGE as u64;
        assert!((0..pages).any(|page| without(&mut linux, page)), "a page that only the tasks are in");

        let mut process = start();
        let lacks_processes =
            |process: &mut Process, linux: &Linux| match ask(process, &linux.ram, About::Kernel(linux.cr3))
                .unwrap()
            {
                Answer::Kernel(Ok(found)) => {
                    Some(found.lacks.iter().any(|(lack, _)| *lack == Lack::Processes))
                }
                Answer::SameKernel => None,
                other => panic!("{other:?}"),
            };
        assert_eq!(lacks_processes(&mut process, &linux), Some(true));
        assert_eq!(lacks_processes(&mut process, &linux), None, "nothing new");
        linux.ram.missing.clear();
        assert_eq!(lacks_processes(&mut process, &linux), Some(false));
        assert_eq!(lacks_processes(&mut process, &linux), None);
    }

    #[test]
    fn it_has_given_up_what_it_does_not_need() {
        let linux = Linux::new(Shape::PLAIN);
        let mut process = start();
        ask(&mut process, &linux.ram, About::Everything).unwrap();
        let folder = format!("/proc/{}", process.child.id());
        // The thread that answers, which is not the first one in a program of tests.
        let confined = |status: &String| status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1");
        let threads = fs::read_dir(format!("{folder}/task")).unwrap();
        let mut statuses =
            threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
        assert!(statuses.any(|status| confined(&status)));
        let limits = fs::read_to_string(format!("{folder}/limits")).unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(limit("Max open files"), "0");
        assert_eq!(limit("Max address space"), (1_u64 << 30).to_string());
    }

    #[test]
    fn whoever_does_not_answer_is_given_up() {
        let linux = Linux::new(Shape::PLAIN);
        let mut process = Process::start(&["sleep", "1000"].map(OsString::from), false).unwrap();
        process.patience = Duration::from_millis(50);
        let error = ask(&mut process, &linux.ram, About::Everything).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert_eq!(process.end().unwrap().signal(), Some(libc::SIGKILL));
    }

    /// A guest that is destroyed must not be kept by what looks into it.
    #[test]
    fn a_guest_that_is_gone_has_no_memory() {
        let linux = Linux::new(Shape::PLAIN);
        let mut process = start();
        let gone = AtomicBool::new(true);
        let answer = process.ask(About::Kernel(linux.cr3), &linux.ram, &gone).unwrap();
        assert!(matches!(answer, Answer::Kernel(Err(_))), "{answer:?}");
        assert_eq!(linux.ram.reads.get(), 0);
    }
}
