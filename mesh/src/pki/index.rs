//! The authority's list of what it issued, one certificate a line:
//! serial, kind, end of validity, time of revocation or `-`, name; separated by tabs.

use std::path::Path;

use super::PkiError;
use super::files;

/// Most certificates one authority's index holds; a file beyond it is refused, not truncated.
pub(super) const INDEX_ENTRIES_MAX: usize = 1_000_000;

/// One issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Serial number, hexadecimal.
    pub(super) serial: String,
    /// `node`, `server` or `client`.
    pub(super) kind: String,
    /// End of validity, seconds since 1970.
    pub(super) not_after: i64,
    /// When it was revoked, seconds since 1970.
    pub(super) revoked_at: Option<i64>,
    /// Common name.
    pub(super) name: String,
}

/// Reads the whole index.
pub(super) fn load(path: &Path) -> Result<Vec<Entry>, PkiError> {
    let text = files::read(path)?;
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = || PkiError::Index { path: path.to_owned(), line: number + 1 };
        if entries.len() == INDEX_ENTRIES_MAX {
            return Err(bad());
        }
        entries.push(parse(line).ok_or_else(bad)?);
    }
    Ok(entries)
}

/// Writes the whole index in one step.
pub(super) fn store(path: &Path, entries: &[Entry]) -> Result<(), PkiError> {
    let text: String = entries.iter().map(format).collect();
    files::replace(path, files::KEY_MODE, &text)
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.splitn(5, '\t');
    let (serial, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let not_after = fields.next()?.parse().ok()?;
    let revoked_at = match fields.next()? {
        "-" => None,
        seconds => Some(seconds.parse().ok()?),
    };
    Some(Entry { serial, kind, not_after, revoked_at, name: fields.next()?.to_owned() })
}

fn format(entry: &Entry) -> String {
    let Entry { serial, kind, not_after, revoked_at, name } = entry;
    let revoked = revoked_at.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
    format!("{serial}\t{kind}\t{not_after}\t{revoked}\t{name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_line() {
        for revoked_at in [None, Some(12)] {
            let entry = Entry {
                serial: "0af1".into(),
                kind: "client".into(),
                not_after: -5,
                revoked_at,
                name: "a vehicle".into(),
            };
            assert_eq!(parse(format(&entry).trim_end()), Some(entry));
        }
        assert_eq!(parse("0af1\tnode\tsoon\t-\tx"), None);
        assert_eq!(parse(""), None);
    }
}
