//! The seal of a JSON object: a checksum of its text as the first field in it, which no reader of it knows or minds.
//!
//! In an entry of a Delta log it is the first field of `commitInfo`, which may hold anything.

const FIELD: &[u8] = br#""crc32c":""#;
const FIELD_END: &[u8] = br#"","#;
const DIGITS: usize = 8;
const COMMIT: &[u8] = br#"{"commitInfo":{"#;

/// Where the seal of a text stands; `None` where there is no place for one.
fn place(text: &[u8], is_commit: bool) -> Option<usize> {
    let after = if is_commit {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n').scan(0, |end, line| {
            *end += line.len();
            Some((*end - line.len(), line))
        });
        lines.find(|(_, line)| line.starts_with(COMMIT)).map(|(begins, _)| begins + COMMIT.len())?
    } else {
        text.starts_with(b"{").then_some(1)?
    };
    let next = text[after..].iter().find(|byte| !byte.is_ascii_whitespace());
    next.is_some_and(|&next| next == b'"').then_some(after)
}

/// A text with its seal; what is no JSON object stays as it is.
pub(super) fn seal(text: &[u8], is_commit: bool) -> Vec<u8> {
    let Some(at) = place(text, is_commit) else { return text.to_vec() };
    let (before, after) = text.split_at(at);
    let checksum = format!("{:08x}", crc32c::crc32c(text));
    [before, FIELD, checksum.as_bytes(), FIELD_END, after].concat()
}

/// Whether a text is what was written; one without a seal is taken as it is.
pub(super) fn check(text: &[u8], is_commit: bool) -> Result<(), &'static str> {
    let Some(at) = place(text, is_commit) else { return Ok(()) };
    let Some(sealed) = text[at..].strip_prefix(FIELD) else { return Ok(()) };
    let parts = sealed.split_at_checked(DIGITS);
    let Some((digits, after)) = parts.and_then(|(digits, rest)| Some((digits, rest.strip_prefix(FIELD_END)?))) else {
        return Err("its checksum is not what was written");
    };
    let checksum = format!("{:08x}", crc32c::crc32c_append(crc32c::crc32c(&text[..at]), after));
    if digits == checksum.as_bytes() { Ok(()) } else { Err("it is not what was written") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str =
        "{\"txn\":{\"appId\":\"a\",\"version\":7}}\n{\"commitInfo\":{\"timestamp\":1}}\n{\"add\":{}}";

    #[test]
    fn no_flipped_bit_changes_what_is_read() {
        for (text, is_commit) in
            [("{\n  \"a\": 1\n}", false), ("{\"id\":\"x\",\"n\":{\"0\":12}}", false), (COMMITTED, true)]
        {
            let sealed = seal(text.as_bytes(), is_commit);
            let read = |text: &[u8]| -> Option<Vec<serde_json::Value>> {
                let read: Result<Vec<serde_json::Value>, _> =
                    serde_json::Deserializer::from_slice(text).into_iter().collect();
                read.ok()
            };
            let known = |lines: &[serde_json::Value]| -> Vec<Vec<serde_json::Value>> {
                let names = ["a", "id", "n", "txn", "add"];
                lines.iter().map(|line| names.iter().map(|name| line[name].clone()).collect()).collect()
            };
            let plain = read(text.as_bytes()).unwrap();
            assert_eq!((check(&sealed, is_commit), check(text.as_bytes(), is_commit)), (Ok(()), Ok(())));
            assert_eq!(known(&read(&sealed).unwrap()), known(&plain));
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if check(&flipped, is_commit).is_err() {
                    continue;
                }
                // The seal itself cannot be seen any more. Then no bit else has flipped.
                let Some(read) = read(&flipped) else { continue };
                assert_eq!(known(&read), known(&plain), "bit {bit} of {}", String::from_utf8_lossy(&sealed));
            }
        }
        for odd in ["", "{", "{}", "[1]", "text"] {
            assert_eq!(seal(odd.as_bytes(), false), odd.as_bytes());
            assert_eq!(check(odd.as_bytes(), false), Ok(()));
        }
    }
}
