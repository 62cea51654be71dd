//! A guest's kernel, found from the page-table root of any of its samples.

use std::{borrow::Cow, ops::Range};

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    build_id,
    cgroups::CgroupLayout,
    current::CurrentLayout,
    error::{GuestError, KernelError, LayoutError, ReadError},
    generated::GeneratedLayout,
    kallsyms,
    kernel_image::{self, Banner, IMAGES, KernelImage, Piece},
    look::{GuestAddress, Look, Space, unless_exhausted},
    mappings::MappingLayout,
    modules::ModuleLayout,
    orc::OrcLayout,
    page_cache::PageCacheLayout,
    page_tables::PageTables,
    places::Places,
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

/// Where the running kernel's structures have their members. Each is known or missing for itself.
#[derive(Debug)]
pub(crate) struct Layouts {
    pub(crate) tasks: Result<TaskLayout, LayoutError>,
    pub(crate) cgroups: Result<CgroupLayout, LayoutError>,
    pub(crate) modules: Result<ModuleLayout, LayoutError>,
    pub(crate) orc: Result<OrcLayout, LayoutError>,
    pub(crate) generated: GeneratedLayout,
    pub(crate) mappings: Result<MappingLayout, LayoutError>,
    pub(crate) page_cache: Result<PageCacheLayout, LayoutError>,
    pub(crate) vdso: Result<VdsoLayout, LayoutError>,
    pub(crate) current: CurrentLayout,
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
                return Ok(Self::with_symbols(look, tables, symbols, banners, pieces)?);
            }
        }
        Err(KernelError::NoSymbols { banner: banners.swap_remove(0).text })
    }

    fn with_symbols(
        look: &Look<'_>,
        tables: PageTables,
        symbols: SymbolList,
        banners: Vec<Banner>,
        pieces: &[Piece],
    ) -> Result<Self, ReadError> {
        let image = look.space(tables, "the kernel's own image");
        let places = Places::of(&symbols, &image)?;
        let part = |range: &Option<_>, max| part(pieces, &image, range, max);
        let build_id =
            part(&places.notes, MAX_NOTES)?.and_then(|notes| Some(build_id::in_notes(&notes)?.to_vec()));
        let types = part(&places.types, MAX_BTF)?;
        let btf = match &types {
            Some(bytes) => Btf::parse(bytes, look.budget())?,
            None => Err(LayoutError::NoBtf),
        };
        let tables = match (&btf, places.init_mm) {
            (Ok(btf), Some(init_mm)) => lasting_tables(&image, look, tables, btf, init_mm)?,
            _ => tables,
        };
        // The list was found to have it there.
        let banner = banners.into_iter().find(|banner| Some(GuestVirtual(banner.address)) == places.banner);
        let banner = banner.map(|banner| banner.text).unwrap_or_default();
        let layouts = btf.map(|btf| Layouts::of(&btf));
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
            orc: OrcLayout::of(btf),
            generated: GeneratedLayout::of(btf),
            mappings: MappingLayout::of(btf),
            page_cache: PageCacheLayout::of(btf),
            vdso: VdsoLayout::of(btf),
            current: CurrentLayout::of(btf),
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

/// The bytes of a part of the image, if it has such a part and it is no larger than any. Most are in the pieces that were
/// copied before.
fn part<'a>(
    pieces: &'a [Piece],
    image: &Space<'_>,
    range: &Option<Range<u64>>,
    max: u64,
) -> Result<Option<Cow<'a, [u8]>>, ReadError> {
    let Some(range) = range else { return Ok(None) };
    let length = range.end.wrapping_sub(range.start);
    if length > max || !IMAGES.contains(&range.start) {
        return Ok(None);
    }
    if let Some(bytes) = pieces.iter().find_map(|piece| piece.part(range)) {
        return Ok(Some(Cow::Borrowed(bytes)));
    }
    let read = image.bytes(GuestVirtual(range.start), length as usize);
    unless_exhausted(read.map(Cow::Owned))
}
