//! Trees and lists of a process's mappings, and the tree of a file's pages.

use super::{
    btf::UP_TO_DATE,
    linux::{Linux, Release},
};

const PAGE: u64 = 4096;
/// The pages of the file, by their fate.
const ABSENT: u64 = 5;
const NOT_UP_TO_DATE: u64 = 6;
const OF_ANOTHER_FILE: u64 = 7;
const SHADOW: u64 = 13;
/// Four pages in one.
const LARGE: std::ops::Range<u64> = 8..12;

/// Whether a page of the file can be had.
pub(crate) fn is_resident(index: u64) -> bool {
    ![ABSENT, NOT_UP_TO_DATE, OF_ANOTHER_FILE, SHADOW].contains(&index)
}

/// Writes the tree of a file's pages.
pub(crate) fn write_pages(linux: &mut Linux, owner: u64) {
    linux.write_content();
    let new = linux.shape.release == Release::New;
    let (mapping, index_at) = match new {
        true => (linux.at("folio", "mapping"), linux.at("folio", "index")),
        false => (linux.at("page", "mapping"), linux.at("page", "index")),
    };
    let top = node(linux, 6);
    for half in 0..2 {
        let leaf = node(linux, 0);
        let link = linux.pointer(leaf) | 2;
        slot(linux, top, half, link);
        for place in 0..64 {
            let index = half * 64 + place;
            if index >= super::FILE_SIZE.div_ceil(PAGE) || index == ABSENT {
                continue;
            }
            let head = if LARGE.contains(&index) { LARGE.start } else { index };
            let (pointer, page) = linux.page(head);
            let owner = if index == OF_ANOTHER_FILE { 0x1234 } else { linux.pointer(owner) };
            linux.ram.write(page + mapping, &owner.to_le_bytes());
            linux.ram.write(page + index_at, &head.to_le_bytes());
            let flags = u64::from(index != NOT_UP_TO_DATE) << UP_TO_DATE;
            linux.ram.write(page + linux.at("page", "flags"), &flags.to_le_bytes());
            let entry = match index {
                SHADOW => 0x77 << 1 | 1,
                // The slot of a newer kernel refers to that of the first page.
                _ if new && head != index => LARGE.start << 2 | 2,
                _ => pointer,
            };
            slot(linux, leaf, place, entry);
        }
    }
    let head = linux.pointer(top) | 2;
    linux.set(owner, "address_space", "i_pages.xa_head", head);
}

fn node(linux: &mut Linux, shift: u8) -> u64 {
    let node = linux.object("xa_node");
    linux.ram.write(node + linux.at("xa_node", "shift"), &[shift]);
    node
}

fn slot(linux: &mut Linux, node: u64, index: u64, entry: u64) {
    let at = node + linux.at("xa_node", "slots") + 8 * index;
    linux.ram.write(at, &entry.to_le_bytes());
}

/// Writes the mappings of a process: one of a file, a heap, many without names, one of the kernel's, a stack.
pub(crate) fn write_areas(linux: &mut Linux, mm: u64, file: u64) {
    let text = 0x40_0000..0x40_0000 + super::FILE_SIZE.next_multiple_of(PAGE);
    let heap = 0x100_0000..0x102_0000;
    let stack = 0x7fff_ff00_0000..0x7fff_ff02_1000;
    let vdso = 0x7fff_ff10_0000..0x7fff_ff10_2000;
    for (member, value) in
        [("start_brk", heap.start), ("brk", heap.end), ("start_stack", stack.start + 0x1234)]
    {
        linux.set(mm, "mm_struct", member, value);
    }
    let mut areas = vec![(text.start, text.end), (heap.start, heap.end)];
    areas
        .extend((0..300).map(|index| 0x7f00_0000_0000 + index * 0x3000).map(|start| (start, start + 0x1000)));
    areas.extend([(stack.start, stack.end), (vdso.start, vdso.end)]);
    let name = linux.text("[vdso]");
    let special = linux.ram.allocate(16, 8);
    let name = linux.pointer(name);
    linux.ram.write(special, &name.to_le_bytes());

    let mut objects = Vec::new();
    for &(start, end) in &areas {
        let area = linux.object("vm_area_struct");
        let flags = if start == text.start { 0b101 } else { 0b011 };
        for (member, value) in [("vm_start", start), ("vm_end", end), ("vm_flags", flags), ("vm_pgoff", 0)] {
            linux.set(area, "vm_area_struct", member, value);
        }
        if start == text.start {
            linux.set(area, "vm_area_struct", "vm_file", linux.pointer(file));
        }
        if start == vdso.start {
            linux.set(area, "vm_area_struct", "vm_ops", linux.special_mapping());
            linux.set(area, "vm_area_struct", "vm_private_data", linux.pointer(special));
        }
        objects.push(area);
    }
    match linux.shape.release {
        Release::Old => {
            let mut next = 0;
            for &area in objects.iter().rev() {
                linux.set(area, "vm_area_struct", "vm_next", next);
                next = linux.pointer(area);
            }
            linux.set(mm, "mm_struct", "mmap", next);
        }
        Release::New => {
            let root = maple(linux, &areas, &objects);
            linux.set(mm, "mm_struct", "mm_mt.ma_root", root);
        }
    }
    linux.areas = areas;
}

/// A node of a tree that is being built, with the last index that it covers.
struct Built {
    entry: u64,
    last: u64,
}

/// Builds a tree of mappings from its leaves upward, and gives its root.
fn maple(linux: &mut Linux, areas: &[(u64, u64)], objects: &[u64]) -> u64 {
    let mut entries = Vec::new();
    let mut end = 0;
    for (&(start, area_end), &object) in areas.iter().zip(objects) {
        if start > end {
            entries.push(Built { entry: 0, last: start - 1 });
        }
        entries.push(Built { entry: linux.pointer(object), last: area_end - 1 });
        end = area_end;
    }
    entries.push(Built { entry: 0, last: u64::MAX });
    // Leaves have up to 16 slots, of which some stay free; nodes above them 10.
    let mut level = maple_level(linux, "maple_range_64", 1, 13, &entries);
    while level.len() > 1 {
        level = maple_level(linux, "maple_arange_64", 3, 9, &level);
    }
    // The root's link has a flag of its own.
    level[0].entry & !4 | 2
}

fn maple_level(linux: &mut Linux, structure: &str, kind: u64, width: usize, below: &[Built]) -> Vec<Built> {
    let mut level = Vec::new();
    for group in below.chunks(width) {
        let node = linux.object(structure);
        let (pivots, slots) = (linux.at(structure, "pivot"), linux.at(structure, "slot"));
        for (index, child) in (0..).zip(group) {
            linux.ram.write(node + slots + 8 * index, &child.entry.to_le_bytes());
            linux.ram.write(node + pivots + 8 * index, &child.last.to_le_bytes());
        }
        level.push(Built { entry: linux.pointer(node) | kind << 3 | 4, last: group.last().unwrap().last });
    }
    level
}
