//! Are files in the page cache what was put there?

use std::{collections::HashSet, fs, path::PathBuf};

use guest::{Content, FileBytes, FileError};

use crate::machines::{self, Machine};

/// The file on this machine that a guest's file was copied from.
fn original(machine: &Machine, path: &str) -> Option<PathBuf> {
    let within = path.strip_prefix("/disk/").or(path.strip_prefix("/overlay/"))?;
    Some(machine.snapshot.files.join(within))
}

#[test]
#[ignore = "boots a machine: cargo xtask test"]
fn resident_pages_are_those_of_the_files_and_others_are_missing() {
    for machine in machines::all() {
        let look = machine.look();
        let kernel = machine.kernel(&look);
        let mut seen = HashSet::new();
        let (mut resident, mut missing) = (0, 0);
        for task in kernel.tasks(&look).unwrap().iter() {
            for mapping in kernel.mappings(&look, task).unwrap() {
                let Content::File(piece) = &mapping.content else { continue };
                if !seen.insert(piece.file) {
                    continue;
                }
                let file = kernel.file(&look, piece.file).unwrap();
                let Some(original) = original(machine, &piece.path) else { continue };
                let original = fs::read(&original).unwrap();
                assert_eq!(file.size(), original.len() as u64, "{}", piece.path);
                for (index, expected) in original.chunks(4096).enumerate() {
                    let mut page = vec![0; expected.len()];
                    match file.read(index as u64 * 4096, &mut page) {
                        Ok(()) => {
                            assert!(
                                page == expected,
                                "{}: page {index} of {} differs",
                                machine.name,
                                piece.path
                            );
                            resident += 1;
                        }
                        Err(FileError::NotResident(_)) => missing += 1,
                        Err(error) => panic!("{}: {error}", piece.path),
                    }
                }
            }
        }
        assert!(resident > 100, "{}: only {resident} pages are resident", machine.name);
        machine.figure("pages of files, all equal", format_args!("{resident}, and {missing} not resident"));
    }
}
