//! The structures of the kernel that was made up: short, and in an order of their own.

/// What a member is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Of so many bytes.
    Plain,
    /// A structure of its own.
    Inner(&'static str),
    /// So many words.
    Words(u32),
    /// A structure without a name, of which this member is part: told by its own members.
    Nameless(&'static str),
}

use Kind::{Inner, Nameless, Plain, Words};

pub(crate) type Member = (&'static str, u32, Kind);
/// Name, size in bytes, members with their offsets.
pub(crate) type Structure = (&'static str, u32, &'static [Member]);

/// What all releases have alike.
const COMMON: &[Structure] = &[
    ("path", 16, &[("dentry", 0, Plain), ("mnt", 8, Plain)]),
    (
        "task_struct",
        160,
        &[
            ("comm", 8, Plain),
            ("tasks", 24, Plain),
            ("thread_node", 40, Plain),
            ("signal", 56, Plain),
            ("mm", 64, Plain),
            ("pid", 72, Plain),
            ("tgid", 76, Plain),
            ("start_time", 80, Plain),
            ("cgroups", 88, Plain),
            ("self_exec_id", 152, Plain),
        ],
    ),
    ("signal_struct", 32, &[("thread_head", 8, Plain)]),
    ("css_set", 64, &[("subsys", 8, Words(3)), ("dfl_cgrp", 40, Plain)]),
    ("cgroup_subsys_state", 16, &[("cgroup", 0, Plain)]),
    ("cgroup", 24, &[("kn", 8, Plain)]),
    ("kernfs_node", 32, &[("name", 8, Plain), ("parent", 16, Plain)]),
    (
        "mod_kallsyms",
        40,
        &[("symtab", 0, Plain), ("num_symtab", 8, Plain), ("strtab", 16, Plain), ("typetab", 24, Plain)],
    ),
    ("bpf_ksym", 96, &[("start", 0, Plain), ("end", 8, Plain), ("name", 16, Plain), ("lnode", 80, Plain)]),
    ("ftrace_ops", 48, &[("trampoline", 0, Plain), ("trampoline_size", 8, Plain), ("list", 16, Plain)]),
    (
        "file",
        64,
        &[
            ("f_mode", 0, Plain),
            ("f_path", 8, Inner("path")),
            ("f_inode", 24, Plain),
            ("f_mapping", 32, Plain),
        ],
    ),
    ("xarray", 16, &[("xa_head", 8, Plain)]),
    ("address_space", 48, &[("host", 0, Plain), ("i_pages", 8, Inner("xarray"))]),
    ("inode", 64, &[("i_ino", 24, Plain), ("i_size", 40, Plain)]),
    ("vfsmount", 32, &[("mnt_root", 8, Plain), ("mnt_sb", 16, Plain)]),
    ("mount", 64, &[("mnt_parent", 0, Plain), ("mnt_mountpoint", 8, Plain), ("mnt", 24, Inner("vfsmount"))]),
    ("hlist_bl_node", 16, &[("next", 0, Plain), ("pprev", 8, Plain)]),
    // The length lies in a structure without a name, and that in a union without one.
    ("hash_len", 8, &[("hash", 0, Plain), ("len", 4, Plain)]),
    ("qstr_union", 8, &[("", 0, Nameless("hash_len"))]),
    ("qstr", 16, &[("", 0, Nameless("qstr_union")), ("name", 8, Plain)]),
    (
        "dentry",
        96,
        &[
            ("d_hash", 0, Inner("hlist_bl_node")),
            ("d_parent", 16, Plain),
            ("d_name", 24, Inner("qstr")),
            ("d_inode", 40, Plain),
            ("d_sb", 56, Plain),
        ],
    ),
    ("vdso_image", 32, &[("data", 0, Plain), ("size", 8, Plain)]),
    ("xa_node", 560, &[("shift", 1, Plain), ("slots", 40, Words(64))]),
];

const OLD: &[Structure] = &[
    (
        "mm_struct",
        64,
        &[
            ("mmap", 0, Plain),
            ("pgd", 8, Plain),
            ("start_brk", 16, Plain),
            ("brk", 24, Plain),
            ("start_stack", 32, Plain),
        ],
    ),
    (
        "vm_area_struct",
        96,
        &[
            ("vm_start", 0, Plain),
            ("vm_end", 8, Plain),
            ("vm_next", 16, Plain),
            ("vm_flags", 24, Plain),
            ("vm_pgoff", 32, Plain),
            ("vm_file", 40, Plain),
            ("vm_ops", 48, Plain),
            ("vm_private_data", 56, Plain),
        ],
    ),
    ("module_layout", 16, &[("base", 0, Plain), ("size", 8, Plain)]),
    (
        "module",
        160,
        &[
            ("state", 0, Plain),
            ("list", 8, Plain),
            ("name", 24, Plain),
            ("core_layout", 88, Inner("module_layout")),
            ("kallsyms", 104, Plain),
        ],
    ),
    (
        "page",
        64,
        &[("flags", 0, Plain), ("mapping", 24, Plain), ("index", 32, Plain), ("private", 40, Plain)],
    ),
];

const NEW: &[Structure] = &[
    ("maple_tree", 16, &[("ma_root", 8, Plain)]),
    (
        "mm_struct",
        72,
        &[
            ("pgd", 8, Plain),
            ("mm_mt", 16, Inner("maple_tree")),
            ("start_brk", 40, Plain),
            ("brk", 48, Plain),
            ("start_stack", 56, Plain),
        ],
    ),
    ("maple_range_64", 256, &[("pivot", 8, Words(15)), ("slot", 128, Words(16))]),
    ("maple_arange_64", 256, &[("pivot", 8, Words(9)), ("slot", 80, Words(10))]),
    (
        "vm_area_struct",
        96,
        &[
            ("vm_start", 8, Plain),
            ("vm_end", 0, Plain),
            ("vm_flags", 24, Plain),
            ("vm_pgoff", 32, Plain),
            ("vm_file", 40, Plain),
            ("vm_ops", 48, Plain),
            ("vm_private_data", 56, Plain),
        ],
    ),
    ("module_memory", 16, &[("size", 0, Plain), ("base", 8, Plain)]),
    (
        "module",
        160,
        &[
            ("state", 0, Plain),
            ("list", 8, Plain),
            ("name", 24, Plain),
            ("mem", 88, Inner("module_memory")),
            ("kallsyms", 104, Plain),
        ],
    ),
    ("page", 64, &[("flags", 0, Plain), ("private", 40, Plain)]),
    ("folio", 64, &[("mapping", 24, Plain), ("index", 32, Plain)]),
    ("pcpu_hot", 16, &[("current_task", 8, Plain)]),
    ("backing_file", 80, &[("file", 0, Inner("file")), ("user_path", 64, Inner("path"))]),
];

/// All structures of an older or a newer kernel; those that others contain come first.
pub(crate) fn structures(new: bool) -> Vec<Structure> {
    let own = if new { NEW } else { OLD };
    COMMON.iter().chain(own).copied().collect()
}

/// Where a member is; the path is dotted where it lies in an inner structure.
pub(crate) fn offset(structures: &[Structure], structure: &str, path: &str) -> u64 {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let (.., members) = structures.iter().find(|found| found.0 == structure).expect(structure);
    for &(found, offset, kind) in *members {
        let offset = u64::from(offset);
        match (kind, rest) {
            (Nameless(inner), _) if has(structures, inner, name) => {
                return offset + self::offset(structures, inner, path);
            }
            (_, None) if found == name => return offset,
            (Inner(inner), Some(rest)) if found == name => {
                return offset + self::offset(structures, inner, rest);
            }
            _ => {}
        }
    }
    panic!("{structure} has no {path}")
}

fn has(structures: &[Structure], structure: &str, member: &str) -> bool {
    let (.., members) = structures.iter().find(|found| found.0 == structure).expect(structure);
    members.iter().any(|&(found, _, kind)| {
        found == member || matches!(kind, Nameless(inner) if has(structures, inner, member))
    })
}

/// The size of a structure.
pub(crate) fn size(structures: &[Structure], structure: &str) -> u64 {
    structures.iter().find(|found| found.0 == structure).expect(structure).1.into()
}
