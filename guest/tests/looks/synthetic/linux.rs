//! A kernel, its processes and their files, put into memory.

use guest::{Frames, Levels};

use super::{
    btf, elf,
    kallsyms::{self, Entry, Layout},
    ram::{Access, Ram},
    structures::{self, Structure},
    trees,
};

const PAGE: u64 = 4096;
const LINKED: u64 = 0xffff_ffff_8100_0000;
const CODE: Access = Access { writable: false, executable: true };
const CONSTANT: Access = Access { writable: false, executable: false };
const DATA: Access = Access { writable: true, executable: false };
/// Parts of the image, from its beginning.
const CONSTANTS: u64 = 0x2_0000;
const NOTES: u64 = CONSTANTS + 0x400;
const TYPES: u64 = CONSTANTS + 0x1000;
const TABLES: u64 = CONSTANTS + 0x8000;
const VARIABLES_SIZE: u64 = 0x1000;
/// Where the array of `struct page`, the pages of the file and the kernel's image lie.
const PAGES: u64 = 2 << 20;
const FILE: u64 = 3 << 20;
const KERNEL: u64 = 4 << 20;
/// What the linker gives to a variable of each CPU.
const PER_CPU: u64 = 0x2_0000;
/// More than the tables need for each function.
const TABLE_BYTES: u64 = 40;

/// The size of the file, a little less than 70 pages.
pub(crate) const FILE_SIZE: u64 = 70 * PAGE - 100;

/// Which structures the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// As up to Linux 6.0: lists of mappings, a slot of the page cache for each page.
    Old,
    /// As since 6.8: trees of mappings, pages larger than a slot, files that stand for others.
    New,
}

/// What kind of guest it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) layout: Layout,
    pub(crate) release: Release,
    pub(crate) levels: Levels,
    pub(crate) frames: Frames,
    /// Whether processes have roots of their own for user mode.
    pub(crate) isolated: bool,
    /// Whether the kernel has type information.
    pub(crate) typed: bool,
    /// Whether it has protected its constants.
    pub(crate) protected: bool,
    pub(crate) slide: u64,
    pub(crate) functions: u64,
}

impl Shape {
    pub(crate) const PLAIN: Self = Self {
        layout: Layout::OffsetsLast,
        release: Release::New,
        levels: Levels::Four,
        frames: Frames::Guest,
        isolated: true,
        typed: true,
        protected: true,
        slide: 0x123_0000,
        functions: 4400,
    };
}

/// A guest.
pub(crate) struct Linux {
    pub(crate) ram: Ram,
    pub(crate) shape: Shape,
    /// The root of the page tables of the one process, in kernel mode and in user mode.
    pub cr3: u64,
    pub(crate) user_cr3: u64,
    pub(crate) symbols: Vec<Entry>,
    /// The file that the process runs.
    pub(crate) file: Vec<u8>,
    /// The starts and ends of all mappings.
    pub(crate) areas: Vec<(u64, u64)>,
    pub(crate) structures: Vec<Structure>,
    root: u64,
    /// Where in the image its variables begin.
    variables: u64,
    direct_map: u64,
    page_array: u64,
}

impl Linux {
    pub(crate) fn new(shape: Shape) -> Self {
        let variables = (TABLES + shape.functions * TABLE_BYTES).next_multiple_of(PAGE);
        let size = (KERNEL + variables + VARIABLES_SIZE).next_multiple_of(2 << 20);
        let mut ram = Ram::new(shape.levels, shape.frames, size);
        let root = ram.allocate(PAGE, PAGE);
        let (direct_map, page_array) = match shape.levels {
            Levels::Four => (0xffff_9a00_0000_0000, 0xffff_f2c0_0000_0000),
            Levels::Five => (0xff11_0000_4000_0000, 0xffd4_0000_0000_0000),
        };
        let structures = structures::structures(shape.release == Release::New);
        let file = elf::file(FILE_SIZE as usize);
        let mut linux = Self {
            ram,
            shape,
            cr3: 0,
            user_cr3: 0,
            symbols: Vec::new(),
            file,
            areas: Vec::new(),
            structures,
            root,
            variables,
            direct_map,
            page_array,
        };
        linux.map_memory();
        linux.write_image();
        linux.write_modules();
        linux.write_processes();
        linux
    }

    fn base(&self) -> u64 {
        LINKED + self.shape.slide
    }

    /// Everything is mapped in one place, the image and the array of pages in others as well.
    fn map_memory(&mut self) {
        let large = if self.ram.frames == Frames::Guest { 2 << 20 } else { PAGE };
        for physical in (0..self.ram.size()).step_by(large as usize) {
            self.ram.map(self.root, self.direct_map + physical, physical, large, DATA);
        }
        let constant = if self.shape.protected { CONSTANT } else { DATA };
        let end = self.variables + VARIABLES_SIZE;
        for (start, end, access) in
            [(0, CONSTANTS, CODE), (CONSTANTS, self.variables, constant), (self.variables, end, DATA)]
        {
            self.ram.map_pages(self.root, self.base() + start, KERNEL + start, end - start, access);
        }
        self.ram.map_pages(self.root, self.page_array, PAGES, self.ram.size() / PAGE * 64, DATA);
    }

    fn write_image(&mut self) {
        let (base, variables_at) = (self.base(), self.variables);
        let new = self.shape.release == Release::New;
        let types = if self.shape.typed { btf::types(&self.structures) } else { Vec::new() };
        let constant = |name: &str, at: u64| (base + at, b'R', name.to_owned());
        let variable = |name: &str, at: u64| (base + variables_at + at, b'D', name.to_owned());
        let mut symbols = vec![
            (0x1_4000, b'A', "cpu_number".to_owned()),
            (base, b'T', "_text".to_owned()),
            constant("linux_banner", CONSTANTS),
            constant("__start_notes", NOTES),
            constant("__stop_notes", NOTES + 36),
            variable("init_task", 0),
            variable("init_mm", 0x400),
            variable("modules", 0x800),
            variable("bpf_kallsyms", 0x810),
            variable("ftrace_ops_trampoline_list", 0x820),
            variable("special_mapping_vmops", 0x840),
            variable("vmemmap_base", 0x860),
            variable("page_offset_base", 0x868),
            variable("vdso_image_64", 0x880),
            variable("__per_cpu_offset", 0x8a0),
            (PER_CPU, b'A', (if new { "pcpu_hot" } else { "current_task" }).to_owned()),
        ];
        if self.shape.typed {
            symbols.push(constant("__start_BTF", TYPES));
            symbols.push(constant("__stop_BTF", TYPES + types.len() as u64));
        }
        if !matches!(self.shape.layout, Layout::WideWords | Layout::OffsetsFirst) {
            symbols.push((base + 0x10, b't', format!("long_{}", "x".repeat(300))));
        }
        symbols.extend(
            (0..self.shape.functions)
                .map(|index| (base + 0x20 + index * 16, b't', format!("do_function_of_some_kind_{index}"))),
        );
        if self.shape.layout == Layout::NothingAbsolute {
            symbols.retain(|(_, kind, _)| *kind != b'A');
        }
        let tables = kallsyms::tables(&symbols, base, self.shape.layout);
        assert!(TABLES + (tables.len() as u64) < variables_at && types.len() as u64 <= TABLES - TYPES);

        let note: Vec<u8> =
            [4_u32, 20, 3].into_iter().flat_map(u32::to_le_bytes).chain(*b"GNU\0").chain(0..20).collect();
        let banner = b"Linux version 6.12.0-made-up (nobody@nowhere) #1 SMP\n\0";
        for (at, bytes) in [(CONSTANTS, &banner[..]), (NOTES, &note), (TYPES, &types), (TABLES, &tables)] {
            self.ram.write(KERNEL + at, bytes);
        }
        let variables = KERNEL + self.variables;
        self.set(variables + 0x400, "mm_struct", "pgd", self.direct_map + self.root);
        // What it gives to processes is here the file that its one process runs.
        let library = self.direct_map + FILE;
        for (at, value) in
            [(0x860, self.page_array), (0x868, self.direct_map), (0x880, library), (0x888, 2 * PAGE)]
        {
            self.ram.write(variables + at, &value.to_le_bytes());
        }
        self.symbols = symbols;
    }

    /// One module with two functions, one program of BPF, one trampoline.
    fn write_modules(&mut self) {
        let module = self.object("module");
        self.ram.write(module + self.at("module", "name"), b"made_up\0");
        let code = if self.shape.release == Release::New { "mem" } else { "core_layout" };
        self.set(module, "module", &format!("{code}.base"), 0xffff_ffff_c000_1000);
        self.set32(module, "module", &format!("{code}.size"), 0x2000);
        let strings = self.text("\0first_function\0second_function");
        let symbols = self.ram.allocate(3 * 24, 8);
        for (index, (name, value)) in
            [(0_u32, 0), (1, 0xffff_ffff_c000_1010_u64), (16, 0xffff_ffff_c000_1020)].iter().enumerate()
        {
            let at = symbols + index as u64 * 24;
            self.ram.write(at, &name.to_le_bytes());
            self.ram.write(at + 8, &value.to_le_bytes());
        }
        let kinds = self.text("?tT");
        let table = self.object("mod_kallsyms");
        self.set32(table, "mod_kallsyms", "num_symtab", 3);
        for (member, object) in [("symtab", symbols), ("strtab", strings), ("typetab", kinds)] {
            self.set(table, "mod_kallsyms", member, self.pointer(object));
        }
        self.set(module, "module", "kallsyms", self.pointer(table));
        self.link(0x800, module, "module", "list");

        let program = self.object("bpf_ksym");
        self.set(program, "bpf_ksym", "start", 0xffff_ffff_c010_0000);
        self.set(program, "bpf_ksym", "end", 0xffff_ffff_c010_0040);
        self.ram.write(program + self.at("bpf_ksym", "name"), b"bpf_prog_0123\0");
        self.link(0x810, program, "bpf_ksym", "lnode");
        let ops = self.object("ftrace_ops");
        self.set(ops, "ftrace_ops", "trampoline", 0xffff_ffff_c020_0000);
        self.set(ops, "ftrace_ops", "trampoline_size", 0x100);
        self.link(0x820, ops, "ftrace_ops", "list");
    }

    /// Makes a list of one, whose head is a variable.
    fn link(&mut self, variable: u64, object: u64, structure: &str, member: &str) {
        let link = self.at(structure, member);
        let head = KERNEL + self.variables + variable;
        self.ram.write(head, &self.pointer(object + link).to_le_bytes());
        let head = self.base() + self.variables + variable;
        self.ram.write(object + link, &head.to_le_bytes());
    }

    /// What idles, a thread of the kernel, and a process of two threads.
    fn write_processes(&mut self) {
        let (mm, file) = (self.object("mm_struct"), self.write_file());
        let process_root = self.ram.allocate(2 * PAGE, 2 * PAGE);
        let upper = self.ram.bytes()[self.root as usize + 2048..][..2048].to_vec();
        self.ram.write(process_root + 2048, &upper);
        self.set(mm, "mm_struct", "pgd", self.direct_map + process_root);
        self.cr3 = self.ram.real(process_root) | 0x806;
        self.user_cr3 = self.cr3;
        let user_root = process_root + PAGE;
        if self.shape.isolated {
            self.ram.map(user_root, self.base(), KERNEL, PAGE, CODE);
            self.user_cr3 = self.ram.real(user_root) | 1 << 63 | 0x807;
        }
        if self.shape.frames == Frames::Machine {
            // Noted at the page of the first root; nothing of the kernel is mapped there.
            let page = PAGES + process_root / PAGE * 64;
            self.set(page, "page", "private", self.direct_map + user_root);
            self.ram.write(user_root, &[0; PAGE as usize]);
            self.user_cr3 = self.ram.real(user_root);
        }
        trees::write_areas(self, mm, file);

        let idle = KERNEL + self.variables;
        let names = [
            ("swapper/0", 0, 0, 0),
            ("kthreadd", 2, 2, 0),
            ("server", 100, 100, mm),
            ("\x1b[1mred\n", 101, 100, mm),
        ];
        let mut tasks = vec![idle];
        tasks.extend((1..4).map(|_| self.object("task_struct")));
        let groups = self.write_cgroups();
        // The second CPU runs the second thread; its variables are an object.
        let current = self.ram.allocate(16, 16);
        let within = if self.shape.release == Release::New { self.at("pcpu_hot", "current_task") } else { 0 };
        self.ram.write(current + within, &self.pointer(tasks[3]).to_le_bytes());
        let offset = self.pointer(current) - PER_CPU;
        self.ram.write(KERNEL + self.variables + 0x8a8, &offset.to_le_bytes());
        for (&task, (comm, pid, tgid, mm)) in tasks.iter().zip(names) {
            self.ram.write(task + self.at("task_struct", "comm"), comm.as_bytes());
            self.set32(task, "task_struct", "pid", pid);
            self.set32(task, "task_struct", "tgid", tgid);
            self.set(task, "task_struct", "start_time", u64::from(pid) * 1000);
            self.set(task, "task_struct", "mm", if mm == 0 { 0 } else { self.pointer(mm) });
            self.set(task, "task_struct", "cgroups", self.pointer(groups[usize::from(pid >= 100)]));
        }
        // The list of all processes, in a circle; the first of it is a variable of the kernel.
        let link = self.at("task_struct", "tasks");
        let first = self.base() + self.variables + link;
        let places = [first, self.pointer(tasks[1] + link), self.pointer(tasks[2] + link)];
        for (index, &task) in tasks[..3].iter().enumerate() {
            self.ram.write(task + link, &places[(index + 1) % 3].to_le_bytes());
        }
        // The lists of their threads.
        let link = self.at("task_struct", "thread_node");
        let first = self.base() + self.variables + link;
        let groups = [
            vec![(idle, first)],
            vec![(tasks[1], self.pointer(tasks[1] + link))],
            vec![(tasks[2], self.pointer(tasks[2] + link)), (tasks[3], self.pointer(tasks[3] + link))],
        ];
        for group in groups {
            let signal = self.object("signal_struct");
            let head = self.pointer(signal + self.at("signal_struct", "thread_head"));
            let mut circle: Vec<u64> = group.iter().map(|&(_, place)| place).collect();
            circle.push(head);
            self.set(signal, "signal_struct", "thread_head", circle[0]);
            for (&(task, _), next) in group.iter().zip(&circle[1..]) {
                self.set(task, "task_struct", "signal", self.pointer(signal));
                self.ram.write(task + link, &next.to_le_bytes());
            }
        }
    }

    /// The set of groups of what is in none, and that of what is in a container.
    fn write_cgroups(&mut self) -> [u64; 2] {
        let mut parent = 0;
        let mut groups = Vec::new();
        for name in ["", "machine.slice", "box.scope"] {
            let (node, name) = (self.object("kernfs_node"), self.text(name));
            self.set(node, "kernfs_node", "name", self.pointer(name));
            self.set(node, "kernfs_node", "parent", parent);
            parent = self.pointer(node);
            let group = self.object("cgroup");
            self.set(group, "cgroup", "kn", self.pointer(node));
            groups.push(group);
        }
        [groups[0], groups[2]].map(|group| {
            let set = self.object("css_set");
            // The older kernel has its containers in another hierarchy.
            let unified = if self.shape.release == Release::New { group } else { groups[0] };
            self.set(set, "css_set", "dfl_cgrp", self.pointer(unified));
            let controller = self.object("cgroup_subsys_state");
            self.set(controller, "cgroup_subsys_state", "cgroup", self.pointer(group));
            self.ram.write(set + self.at("css_set", "subsys") + 8, &self.pointer(controller).to_le_bytes());
            set
        })
    }

    /// The file that the process runs, in a directory, with most of its pages in memory. Gives `struct file`.
    fn write_file(&mut self) -> u64 {
        let (inode, pages) = (self.object("inode"), self.object("address_space"));
        self.set(inode, "inode", "i_ino", 77);
        self.set(inode, "inode", "i_size", FILE_SIZE);
        self.set(pages, "address_space", "host", self.pointer(inode));
        let mount = self.object("mount");
        let mut parent = 0;
        for name in ["/", "bin", "server"] {
            let (dentry, text) = (self.object("dentry"), self.text(name));
            self.set(dentry, "dentry", "d_name.name", self.pointer(text));
            self.set32(dentry, "dentry", "d_name.len", name.len() as u32);
            self.set(dentry, "dentry", "d_parent", self.pointer(if parent == 0 { dentry } else { parent }));
            self.set(dentry, "dentry", "d_hash.pprev", 1);
            self.set(dentry, "dentry", "d_inode", self.pointer(inode));
            self.set(dentry, "dentry", "d_sb", 0x5b);
            if parent == 0 {
                self.set(mount, "mount", "mnt.mnt_root", self.pointer(dentry));
                self.set(mount, "mount", "mnt.mnt_sb", 0x5b);
                self.set(mount, "mount", "mnt_parent", self.pointer(mount));
            }
            parent = dentry;
        }
        let mounted = self.pointer(mount + self.at("mount", "mnt"));
        let backed = self.shape.release == Release::New;
        let file = self.object(if backed { "backing_file" } else { "file" });
        self.set(file, "file", "f_inode", self.pointer(inode));
        self.set(file, "file", "f_mapping", self.pointer(pages));
        // What a newer kernel shows is not the path of the file that is mapped, but that of the one it stands for.
        let shown = if backed { "backing_file" } else { "file" };
        let path = if backed { "user_path" } else { "f_path" };
        self.set(file, shown, &format!("{path}.mnt"), mounted);
        self.set(file, shown, &format!("{path}.dentry"), self.pointer(parent));
        if backed {
            self.set32(file, "file", "f_mode", 1 << 25);
            self.set(file, "file", "f_path.mnt", mounted);
            self.set(file, "file", "f_path.dentry", self.pointer(parent));
        }
        trees::write_pages(self, pages);
        file
    }

    /// Where in memory the type information is, and how long it is.
    pub(crate) fn types(&self) -> (usize, usize) {
        ((KERNEL + TYPES) as usize, btf::types(&self.structures).len())
    }

    /// Where in memory there is room for the tables of symbols, and how much.
    pub(crate) fn tables(&self) -> (usize, usize) {
        ((KERNEL + TABLES) as usize, (self.variables - TABLES) as usize)
    }

    /// The `struct page` of a page of the file, as the kernel's pointer to it; and its place in memory.
    pub(crate) fn page(&self, index: u64) -> (u64, u64) {
        let offset = (FILE + index * PAGE) / PAGE * 64;
        (self.page_array + offset, PAGES + offset)
    }

    /// Writes the file's bytes to where its pages are.
    pub(crate) fn write_content(&mut self) {
        let content = self.file.clone();
        self.ram.write(FILE, &content);
    }

    // What objects are made with.

    pub(crate) fn at(&self, structure: &str, path: &str) -> u64 {
        structures::offset(&self.structures, structure, path)
    }

    pub(crate) fn object(&mut self, structure: &str) -> u64 {
        let size = structures::size(&self.structures, structure);
        self.ram.allocate(size, if size >= 256 { 256 } else { 16 })
    }

    pub(crate) fn pointer(&self, physical: u64) -> u64 {
        self.direct_map + physical
    }

    pub(crate) fn text(&mut self, text: &str) -> u64 {
        let place = self.ram.allocate(text.len() as u64 + 1, 8);
        self.ram.write(place, text.as_bytes());
        place
    }

    pub(crate) fn set(&mut self, object: u64, structure: &str, path: &str, value: u64) {
        let at = object + self.at(structure, path);
        self.ram.write(at, &value.to_le_bytes());
    }

    pub(crate) fn set32(&mut self, object: u64, structure: &str, path: &str, value: u32) {
        let at = object + self.at(structure, path);
        self.ram.write(at, &value.to_le_bytes());
    }

    /// What mappings of the kernel's own making have for operations.
    pub(crate) fn special_mapping(&self) -> u64 {
        self.base() + self.variables + 0x840
    }
}
