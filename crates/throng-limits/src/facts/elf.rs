//! Which functions a program takes from its libraries, read from its ELF file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Sections that are looked at; a program has about thirty.
const SECTIONS_MAX: u64 = 4096;
/// Bytes of the table of names, and of symbols, that are looked at.
const TABLE_BYTES_MAX: u64 = 16 << 20;
/// `SHT_DYNSYM`
const DYNAMIC_SYMBOLS: u32 = 11;
/// Bytes of an entry of the symbol table of 64-bit files.
const SYMBOL_BYTES: usize = 24;

/// Whether a program imports any of these functions; none where the file cannot be read, or is no
/// 64-bit little-endian ELF file (all others are refused, never guessed at).
#[must_use]
pub fn imports(path: &Path, names: &[&str]) -> Option<bool> {
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    imported(&Source::File(&file), names)
}

/// Where the bytes come from.
enum Source<'a> {
    File(&'a File),
    #[cfg(test)]
    Bytes(&'a [u8]),
}

impl Source<'_> {
    fn read(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        // BOUNDED: what one question reads.
        if len > TABLE_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        match self {
            Self::File(file) => file.read_exact_at(&mut bytes, at).ok()?,
            #[cfg(test)]
            Self::Bytes(all) => {
                let at = usize::try_from(at).ok()?;
                let end = at.checked_add(bytes.len())?;
                bytes.copy_from_slice(all.get(at..end)?);
            }
        }
        Some(bytes)
    }
}

fn imported(source: &Source<'_>, names: &[&str]) -> Option<bool> {
    let head = source.read(0, 64)?;
    // elf(5): magic, then ELFCLASS64, ELFDATA2LSB.
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let sections_at = u64_at(&head, 40)?;
    let (entry, count) = (u64::from(u16_at(&head, 58)?), u64::from(u16_at(&head, 60)?));
    if entry < 64 || count > SECTIONS_MAX {
        return None;
    }
    let table = source.read(sections_at, entry * count)?;
    let mut sections = table.chunks_exact(usize::try_from(entry).ok()?);
    let symbols = sections.find(|section| u32_at(section, 4) == Some(DYNAMIC_SYMBOLS));
    // A static program takes nothing from anybody.
    let Some(symbols) = symbols else { return Some(false) };
    let strings = usize::try_from(u32_at(symbols, 40)?).ok()?;
    let strings = table.chunks_exact(usize::try_from(entry).ok()?).nth(strings)?;
    let texts = source.read(u64_at(strings, 24)?, u64_at(strings, 32)?)?;
    let symbols = source.read(u64_at(symbols, 24)?, u64_at(symbols, 32)?)?;
    let imports = symbols.chunks_exact(SYMBOL_BYTES).filter(|symbol| {
        // elf(5): st_shndx of what is defined elsewhere is SHN_UNDEF, 0.
        u16_at(symbol, 6) == Some(0)
    });
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    Some(
        imports
            .filter_map(|symbol| name_at(&texts, u32_at(symbol, 0)?))
            .any(|name| names.contains(&name)),
    )
}

fn name_at(texts: &[u8], at: u32) -> Option<&[u8]> {
    texts.get(usize::try_from(at).ok()?..)?.split(|byte| *byte == 0).next()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
