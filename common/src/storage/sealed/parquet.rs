//! The seal of a Parquet file: a checksum of each of its blocks, and one of what says so.
//!
//! It stands between the pages and Parquet's own footer, where no reader looks: footers say where everything is by its
//! offset, so the file is one like any other for those who do not know of seals.

use std::ops::Range;

use bytes::Bytes;

/// A checksum covers so many bytes: a page or two, so that little is read for nothing.
pub(super) const BLOCK: u64 = 16 << 10;
/// The end of a file: how long its footer is, and Parquet's mark.
const END: u64 = 8;
const MARK: &[u8] = b"PAR1";
/// What a seal ends with: how many checksums there are, its mark, and the checksum of seal and footer.
const SEAL_END: u64 = 16;
const SEAL_MARK: &[u8] = b"LAMSEAL1";

/// What a file's blocks come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// The pages end here.
    body: u64,
    size: u64,
    blocks: Vec<u32>,
    /// Of all that follows the pages.
    tail: u32,
}

/// What the end of a file shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// A seal that is whole.
    Seal(Seal),
    /// No seal: the file was written by others, or before there were any.
    None,
    /// So many bytes of its end must be seen.
    More(u64),
}

/// A file with its seal; what is no Parquet file stays as it is.
pub(super) fn seal(file: Bytes) -> Bytes {
    let Some(footer) = footer(&file, file.len() as u64).and_then(|footer| usize::try_from(footer).ok()) else {
        return file;
    };
    let (body, footer) = file.split_at(footer);
    let checksums: Vec<u8> = body.chunks(length(BLOCK)).flat_map(|block| crc32c::crc32c(block).to_le_bytes()).collect();
    let count = u32::try_from(checksums.len() / 4).unwrap_or(u32::MAX);
    let mut sealed = Vec::with_capacity(file.len() + checksums.len() + length(SEAL_END));
    sealed.extend_from_slice(body);
    sealed.extend_from_slice(&checksums);
    sealed.extend_from_slice(&count.to_le_bytes());
    sealed.extend_from_slice(SEAL_MARK);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&sealed[body.len()..]), footer);
    sealed.extend_from_slice(&checksum.to_le_bytes());
    sealed.extend_from_slice(footer);
    sealed.into()
}

/// Where the footer of a file of `size` bytes begins that ends with `end`.
fn footer(end: &[u8], size: u64) -> Option<u64> {
    let (rest, mark) = end.split_last_chunk::<4>()?;
    let (_, length) = rest.split_last_chunk::<4>()?;
    let begins = size.checked_sub(END)?.checked_sub(u32::from_le_bytes(*length).into())?;
    (mark == MARK).then_some(begins)
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Seal {
    /// What a file of `size` bytes shows that ends with `end`; why it cannot be what was written.
    pub(super) fn read(end: &[u8], size: u64) -> Result<Shown, &'static str> {
        let footer = footer(end, size).ok_or("it does not end as a Parquet file does")?;
        // Whoever goes by a length that is not what it was looks for the seal in the wrong place.
        let elsewhere = || match end.windows(SEAL_MARK.len()).any(|bytes| bytes == SEAL_MARK) {
            true => Err("its footer is not where it says"),
            false => Ok(Shown::None),
        };
        let Some(mark) = footer.checked_sub(SEAL_END) else { return elsewhere() };
        let begins = size - end.len() as u64;
        if mark < begins {
            return Ok(Shown::More(size - mark));
        }
        let (count, rest) = end[length(mark - begins)..].split_first_chunk::<4>().ok_or("its seal is cut off")?;
        let Some((checksum, footer)) = rest.strip_prefix(SEAL_MARK).and_then(<[u8]>::split_first_chunk::<4>) else {
            return elsewhere();
        };
        let count = u64::from(u32::from_le_bytes(*count));
        let body = mark.checked_sub(4 * count).filter(|body| body.div_ceil(BLOCK) == count);
        let body = body.ok_or("its seal is not what was written")?;
        if body < begins {
            return Ok(Shown::More(size - body));
        }
        let tail = &end[length(body - begins)..];
        let checksums = &tail[..length(4 * count)];
        let sealed = &tail[..checksums.len() + 4 + SEAL_MARK.len()];
        if crc32c::crc32c_append(crc32c::crc32c(sealed), footer) != u32::from_le_bytes(*checksum) {
            return Err("its seal or footer is not what was written");
        }
        let (blocks, _) = checksums.as_chunks::<4>();
        let blocks = blocks.iter().map(|block| u32::from_le_bytes(*block)).collect();
        Ok(Shown::Seal(Self { body, size, blocks, tail: crc32c::crc32c(tail) }))
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        4 * self.blocks.len()
    }

    /// The whole blocks that `range` touches.
    pub(super) fn widen(&self, range: &Range<u64>) -> Range<u64> {
        let start = if range.start < self.body { range.start / BLOCK * BLOCK } else { self.body };
        let end = if range.end > self.body { self.size } else { range.end.next_multiple_of(BLOCK).min(self.body) };
        start..end
    }

    /// Whether whole blocks from `start` on are what was written; the first that is not.
    pub(super) fn check(&self, start: u64, mut bytes: &[u8]) -> Result<(), Range<u64>> {
        let mut at = start;
        while !bytes.is_empty() {
            let (end, known) = match at < self.body {
                true => ((at + BLOCK).min(self.body), self.blocks.get(length(at / BLOCK))),
                false => (self.size, Some(&self.tail)),
            };
            let (block, rest) = bytes.split_at_checked(length(end - at)).ok_or(at..end)?;
            if known != Some(&crc32c::crc32c(block)) {
                return Err(at..end);
            }
            (at, bytes) = (end, rest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What looks like a Parquet file from outside.
    fn file(body: usize, footer: usize) -> Bytes {
        let mut file: Vec<u8> = (0..body + footer).map(|i| u8::try_from(i % 251).unwrap()).collect();
        file.extend_from_slice(&u32::try_from(footer).unwrap().to_le_bytes());
        file.extend_from_slice(MARK);
        file.into()
    }

    fn read(file: &[u8]) -> Result<Shown, &'static str> {
        Seal::read(file, file.len() as u64)
    }

    #[test]
    fn what_is_written_is_read() {
        for (body, footer) in [(4, 0), (100, 30), (16 << 10, 99), (100_000, 1000)] {
            let plain = file(body, footer);
            let sealed = seal(plain.clone());
            assert_eq!((&sealed[..body], &sealed[sealed.len() - footer - 8..]), (&plain[..body], &plain[body..]));
            let Ok(Shown::Seal(seal)) = read(&sealed) else { panic!("{body} {footer}: {:?}", read(&sealed)) };
            assert_eq!((seal.body, seal.check(0, &sealed)), (body as u64, Ok(())));
            for range in [0..1, 20_000..20_001, 99_000..110_000, 5..u64::MAX] {
                let range = range.start.min(seal.size - 1)..range.end.min(seal.size);
                let wide = seal.widen(&range);
                assert!(
                    wide.start <= range.start && range.end <= wide.end && wide.end <= seal.size,
                    "{range:?} {wide:?}"
                );
                let bytes = &sealed[usize::try_from(wide.start).unwrap()..usize::try_from(wide.end).unwrap()];
                assert_eq!(seal.check(wide.start, bytes), Ok(()));
            }
            // Of its end as much is asked for as is needed.
            let Ok(Shown::More(more)) = Seal::read(&sealed[sealed.len() - 8..], seal.size) else { panic!() };
            let from = |bytes: u64| &sealed[sealed.len() - usize::try_from(bytes).unwrap()..];
            let shown = match Seal::read(from(more), seal.size) {
                Ok(Shown::More(more)) => Seal::read(from(more), seal.size),
                shown => shown,
            };
            assert_eq!(shown, Ok(Shown::Seal(seal)));
        }
        assert_eq!(read(&file(100, 30)), Ok(Shown::None));
        assert_eq!(seal("groups".into()), "groups");
        assert!(read(b"groups").is_err() && read(b"").is_err());
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let sealed = seal(file(40_000, 100));
        let Ok(Shown::Seal(whole)) = read(&sealed) else { panic!() };
        let mark = sealed.len() - 100 - 8 - 4 - SEAL_MARK.len()..sealed.len() - 100 - 8 - 4;
        for bit in (0..40_000 * 8).step_by(997).chain(40_000 * 8..sealed.len() * 8) {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(&flipped) {
                Ok(Shown::Seal(seal)) => assert!(seal == whole && seal.check(0, &flipped).is_err(), "bit {bit}"),
                // Then all else is as it was.
                Ok(Shown::None) => assert!(mark.contains(&(bit / 8)), "bit {bit}"),
                Ok(Shown::More(_)) => panic!("bit {bit}"),
                Err(_) => assert!(bit >= 40_000 * 8, "bit {bit}"),
            }
        }
    }
}
