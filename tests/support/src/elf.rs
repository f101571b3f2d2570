//! Reads ELF files: what they export, what they need.

use std::collections::BTreeSet;

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionTable, Sym};
use object::{Endianness, elf};

type File = FileHeader64<Endianness>;

/// The names of the dynamic symbols that are defined, or that are not.
fn symbols(bytes: &[u8], is_defined: bool) -> BTreeSet<String> {
    let (endian, sections) = sections(bytes);
    let symbols = sections.symbols(endian, bytes, elf::SHT_DYNSYM).unwrap();
    symbols
        .iter()
        .filter(|symbol| symbol.is_undefined(endian) != is_defined)
        .map(|symbol| text(symbol.name(endian, symbols.strings()).unwrap()))
        .collect()
}

/// The functions and data that the file has for others.
pub fn exported(bytes: &[u8]) -> BTreeSet<String> {
    symbols(bytes, true)
}

/// The functions and data that the file wants of others.
pub fn imported(bytes: &[u8]) -> BTreeSet<String> {
    symbols(bytes, false)
}

/// The libraries that the file needs.
pub fn libraries(bytes: &[u8]) -> BTreeSet<String> {
    let (endian, sections) = sections(bytes);
    let (entries, strings) = sections.dynamic(endian, bytes).unwrap().unwrap();
    let strings = sections.strings(endian, bytes, strings).unwrap();
    entries
        .iter()
        .filter(|entry| entry.d_tag.get(endian) == elf::DT_NEEDED)
        .map(|entry| {
            let offset = u32::try_from(entry.d_val.get(endian)).unwrap();
            text(strings.get(offset).unwrap())
        })
        .collect()
}

/// Whether all functions that the file needs are looked up when it is loaded, not when they are called.
pub fn is_bound_when_loaded(bytes: &[u8]) -> bool {
    let (endian, sections) = sections(bytes);
    let (entries, _) = sections.dynamic(endian, bytes).unwrap().unwrap();
    let flags = entries
        .iter()
        .find(|entry| entry.d_tag.get(endian) == elf::DT_FLAGS);
    flags.is_some_and(|entry| entry.d_val.get(endian) & u64::from(elf::DF_BIND_NOW) != 0)
}

/// The versions of libraries that the file needs, such as `GLIBC_2.30`.
pub fn versions(bytes: &[u8]) -> BTreeSet<String> {
    let (endian, sections) = sections(bytes);
    let Some((mut needed, strings)) = sections.gnu_verneed(endian, bytes).unwrap() else {
        return BTreeSet::new();
    };
    let strings = sections.strings(endian, bytes, strings).unwrap();
    let mut versions = BTreeSet::new();
    while let Some((_, mut names)) = needed.next().unwrap() {
        while let Some(name) = names.next().unwrap() {
            versions.insert(text(name.name(endian, strings).unwrap()));
        }
    }
    versions
}

fn sections(bytes: &[u8]) -> (Endianness, SectionTable<'_, File>) {
    let header = File::parse(bytes).unwrap();
    let endian = header.endian().unwrap();
    (endian, header.sections(endian, bytes).unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
