//! A guest's kernel, found from the page-table root of any of its samples.

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    build_id,
    cgroups::CgroupLayout,
    error::{GuestError, KernelError, LayoutError, ReadError},
    generated::GeneratedLayout,
    kallsyms,
    kernel_image::{self, Banner, IMAGES, KernelImage, Piece},
    look::{GuestAddress, Look, Space},
    mappings::MappingLayout,
    modules::ModuleLayout,
    page_cache::PageCacheLayout,
    page_tables::PageTables,
    symbols::SymbolList,
    tasks::TaskLayout,
    vdso::VdsoLayout,
};

/// Where Linux is linked to run unless it is moved (`CONFIG_PHYSICAL_START`, which distributions leave as it is).
const LINKED: u64 = 0xffff_ffff_8100_0000;
const MAX_BTF: u64 = 16 << 20;
const MAX_NOTES: u64 = 64 << 10;

/// A guest's kernel: what of it does not change as long as it runs.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) tables: PageTables,
    pub(crate) places: Places,
    pub(crate) layouts: Result<Layouts, LayoutError>,
    banner: String,
    build_id: Option<Vec<u8>>,
    symbols: SymbolList,
}

/// Where the kernel keeps what is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    text: Option<GuestVirtual>,
    banner: Option<GuestVirtual>,
    pub(crate) init_task: Option<GuestVirtual>,
    pub(crate) modules: Option<GuestVirtual>,
    pub(crate) bpf_symbols: Option<GuestVirtual>,
    pub(crate) trampolines: Option<GuestVirtual>,
    pub(crate) special_mapping: Option<GuestVirtual>,
    pub(crate) vdso: Option<GuestVirtual>,
    /// The first page's `struct page`, and where the first page of memory is mapped.
    pub(crate) page_array: GuestVirtual,
    pub(crate) direct_map: GuestVirtual,
}

/// Where the running kernel's structures have their members. Each is known or missing for itself.
#[derive(Debug)]
pub(crate) struct Layouts {
    pub(crate) tasks: Result<TaskLayout, LayoutError>,
    pub(crate) cgroups: Result<CgroupLayout, LayoutError>,
    pub(crate) modules: Result<ModuleLayout, LayoutError>,
    pub(crate) generated: GeneratedLayout,
    pub(crate) mappings: Result<MappingLayout, LayoutError>,
    pub(crate) page_cache: Result<PageCacheLayout, LayoutError>,
    pub(crate) vdso: Result<VdsoLayout, LayoutError>,
}

impl Kernel {
    /// Finds the kernel whose page tables `cr3` belongs to: the CR3 of a sample of whatever privilege, with its control
    /// bits.
    ///
    /// One sample in the kernel or in a process is enough; in a Xen PV domain it must be one in the kernel, since the
    /// page tables of its processes do not map it.
    pub fn find(look: &Look<'_>, cr3: u64) -> Result<Self, KernelError> {
        let candidates = KernelImage::candidates(look, cr3)?;
        let mut error = KernelError::NotLinux(cr3);
        for image in &candidates {
            for part in [KernelImage::constants, KernelImage::whole] {
                match Self::in_pieces(look, image.tables, &part(image, look)?) {
                    Err(exhausted @ KernelError::Read(_)) => return Err(exhausted),
                    // Of several, what came nearest to a kernel is worth telling.
                    Err(other) if matches!(error, KernelError::NoSymbols { .. }) => drop(other),
                    Err(other) => error = other,
                    found => return found,
                }
            }
        }
        Err(error)
    }

    fn in_pieces(look: &Look<'_>, tables: PageTables, pieces: &[Piece]) -> Result<Self, KernelError> {
        let mut banners = kernel_image::banners(look, pieces)?;
        for piece in pieces {
            if let Some(symbols) = kallsyms::find(piece, &banners, look.budget())? {
                return Ok(Self::with_symbols(look, tables, symbols, banners)?);
            }
        }
        Err(KernelError::NoSymbols { banner: banners.swap_remove(0).text })
    }

    fn with_symbols(
        look: &Look<'_>,
        tables: PageTables,
        symbols: SymbolList,
        banners: Vec<Banner>,
    ) -> Result<Self, ReadError> {
        let found = symbols.addresses([
            "_text",
            "linux_banner",
            "init_task",
            "modules",
            "bpf_kallsyms",
            "ftrace_ops_trampoline_list",
            "special_mapping_vmops",
            "vdso_image_64",
            // Its name since 6.15.
            "vdso64_image",
            "vmemmap_base",
            "page_offset_base",
            "__start_BTF",
            "__stop_BTF",
            "__start_notes",
            "__stop_notes",
            "init_mm",
        ]);
        let [
            text,
            banner_at,
            init_task,
            modules,
            bpf_symbols,
            trampolines,
            special_mapping,
            vdso,
            newer_vdso,
            ..,
        ] = found;
        let [.., page_array, direct_map, btf_start, btf_end, notes_start, notes_end, init_mm] = found;
        let space = look.space(tables, "the kernel's own image");
        // Where they are no variables, memory is not moved at random, and they are these.
        let variable = |place: Option<GuestVirtual>, fixed| match place {
            Some(place) => {
                unless_exhausted(space.u64(place)).map(|value| GuestVirtual(value.unwrap_or(fixed)))
            }
            None => Ok(GuestVirtual(fixed)),
        };
        let places = Places {
            text,
            banner: banner_at,
            init_task,
            modules,
            bpf_symbols,
            trampolines,
            special_mapping,
            vdso: vdso.or(newer_vdso),
            page_array: variable(page_array, 0xffff_ea00_0000_0000)?,
            direct_map: variable(direct_map, 0xffff_8880_0000_0000)?,
        };

        let notes = unless_exhausted(between(&space, notes_start, notes_end, MAX_NOTES))?.flatten();
        let build_id = notes.as_deref().and_then(build_id::in_notes).map(<[u8]>::to_vec);
        let btf = match unless_exhausted(between(&space, btf_start, btf_end, MAX_BTF))?.flatten() {
            Some(bytes) => Btf::parse(bytes, look.budget())?,
            None => Err(LayoutError::NoBtf),
        };
        let tables = match (&btf, init_mm) {
            (Ok(btf), Some(init_mm)) => lasting_tables(&space, look, tables, btf, init_mm)?,
            _ => tables,
        };
        let layouts = btf.map(|btf| Layouts::of(&btf));
        // The list was found to have it there.
        let banner = banners.into_iter().find(|banner| Some(GuestVirtual(banner.address)) == banner_at);
        let banner = banner.map(|banner| banner.text).unwrap_or_default();
        Ok(Self { tables, places, layouts, banner, build_id, symbols })
    }

    /// What the kernel says it is, its version first: `Linux version 6.1.0-…`. Untrusted text.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Its version, as in `6.1.0-37-cloud-amd64`. Untrusted text.
    pub fn release(&self) -> &str {
        self.banner.split(' ').nth(2).unwrap_or_default()
    }

    /// What tells it from every other build of a kernel, if it has that.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Where its code begins.
    pub fn base(&self) -> Option<GuestVirtual> {
        self.places.text
    }

    /// How far from where it was linked it runs (KASLR).
    pub fn slide(&self) -> Option<u64> {
        self.places.text.map(|text| text.0.wrapping_sub(LINKED))
    }

    /// Its page tables: they stay when the process of the sample that it was found by is gone.
    pub fn page_tables(&self) -> PageTables {
        self.tables
    }

    /// Its own symbols, without those of its modules.
    pub fn symbols(&self) -> &SymbolList {
        &self.symbols
    }

    /// Whether its modules, processes and files can be told, or why not. What single ones of them lack is told where it
    /// is asked for.
    pub fn knows_its_structures(&self) -> Result<(), &LayoutError> {
        self.layouts.as_ref().map(drop)
    }

    /// Whether this kernel is still the one that runs: false after a reboot, or a kexec, into another kernel or to
    /// another place.
    ///
    /// This costs a few reads. A reboot that leads the same kernel to the same place is none for its symbols.
    pub fn still_runs(&self, look: &Look<'_>) -> Result<bool, ReadError> {
        let Some(place) = self.places.banner else { return Ok(false) };
        let mut bytes = vec![0; self.banner.len()];
        match look.read(self.tables, place, &mut bytes) {
            Err(exhausted @ ReadError::Exhausted(_)) => Err(exhausted),
            Err(_) => Ok(false),
            Ok(()) => Ok(String::from_utf8_lossy(&bytes) == self.banner),
        }
    }

    /// The kernel's own address space, for reading `what`.
    pub(crate) fn space<'a>(&self, look: &'a Look<'_>, what: &'static str) -> Space<'a> {
        look.space(self.tables, what)
    }

    /// A part of the layouts.
    pub(crate) fn layout<'a, T>(
        &'a self,
        part: impl FnOnce(&'a Layouts) -> &'a Result<T, LayoutError>,
    ) -> Result<&'a T, GuestError> {
        let layouts = self.layouts.as_ref().map_err(Clone::clone)?;
        Ok(part(layouts).as_ref().map_err(Clone::clone)?)
    }
}

impl Layouts {
    fn of(btf: &Btf) -> Self {
        Self {
            tasks: TaskLayout::of(btf),
            cgroups: CgroupLayout::of(btf),
            modules: ModuleLayout::of(btf),
            generated: GeneratedLayout::of(btf),
            mappings: MappingLayout::of(btf),
            page_cache: PageCacheLayout::of(btf),
            vdso: VdsoLayout::of(btf),
        }
    }
}

/// The kernel's own page tables, through which it can be read however long this or that process lives.
fn lasting_tables(
    space: &Space<'_>,
    look: &Look<'_>,
    tables: PageTables,
    btf: &Btf,
    init_mm: GuestVirtual,
) -> Result<PageTables, ReadError> {
    let Ok(pgd) = btf.offset("mm_struct", "pgd") else { return Ok(tables) };
    let Some(root) = unless_exhausted(space.pointer(init_mm.plus(pgd)))? else { return Ok(tables) };
    let translate = |tables, address| match look.translate(tables, address) {
        Err(exhausted @ ReadError::Exhausted(_)) => Err(exhausted),
        found => Ok(found.ok().map(|found| found.address)),
    };
    let Some(root) = translate(tables, root)? else { return Ok(tables) };
    let own = PageTables::of_cr3(root.0, tables.levels);
    let same = translate(own, init_mm)? == translate(tables, init_mm)?;
    Ok(if same { own } else { tables })
}

/// The bytes from one symbol to another within the image.
fn between(
    space: &Space<'_>,
    start: Option<GuestVirtual>,
    end: Option<GuestVirtual>,
    max: u64,
) -> Result<Option<Vec<u8>>, GuestError> {
    let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
    let length = end.0.wrapping_sub(start.0);
    if length > max || !IMAGES.contains(&start.0) {
        return Ok(None);
    }
    space.bytes(start, length as usize).map(Some)
}

/// Lets what can't be read be missing, but not go on when the budget is spent.
fn unless_exhausted<T>(result: Result<T, GuestError>) -> Result<Option<T>, ReadError> {
    match result {
        Err(GuestError::Exhausted(exhausted)) => Err(exhausted.into()),
        other => Ok(other.ok()),
    }
}
