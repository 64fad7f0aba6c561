//! The file of users: a name and a verifier a line.
//!
//! ```text
//! # made by `verge passwd FILE USER`
//! car-17:SCRAM-SHA-256$20000:c2FsdA==$StoredKey…:ServerKey…
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use thiserror::Error;

use super::name::{self, UserName};
use super::verifier::{ITERATIONS_DEFAULT, SCHEME, Verifier, VerifierError};

/// Most users of a file: some hundred megabytes of memory. Larger fleets have certificates.
const USERS_MAX: usize = 1_000_000;

/// A line that is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {cause}")]
pub struct UsersError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub cause: LineError,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineError {
    /// Its form.
    #[error("not NAME:VERIFIER")]
    Form,
    /// The name before the verifier.
    #[error("not a user name (RFC 4013)")]
    Name,
    /// The verifier.
    #[error("{0}")]
    Verifier(#[from] VerifierError),
    /// The name stands above already.
    #[error("the user is there twice")]
    Twice,
    /// More than are kept.
    #[error("more than {USERS_MAX} users")]
    TooMany,
}

/// The users there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users(BTreeMap<UserName, Arc<Verifier>>);

impl Users {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The first line that is no user.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if !line.is_empty() && !line.starts_with('#') {
                users.add(line).map_err(|cause| UsersError { line: index + 1, cause })?;
            }
        }
        Ok(users)
    }

    fn add(&mut self, line: &str) -> Result<(), LineError> {
        // A name may have a colon; a verifier has no scheme inside.
        let at = line.rfind(&format!(":{SCHEME}")).ok_or(LineError::Form)?;
        let (name, verifier) = (&line[..at], &line[at + 1..]);
        let name = prepare(name).ok_or(LineError::Name)?;
        let verifier = verifier.parse::<Verifier>()?;
        if self.0.len() == USERS_MAX {
            return Err(LineError::TooMany);
        }
        match self.0.insert(name, Arc::new(verifier)) {
            None => Ok(()),
            Some(_) => Err(LineError::Twice),
        }
    }

    /// Puts a user, in place of one with the same name.
    pub fn put(&mut self, name: UserName, verifier: Verifier) {
        self.0.insert(name, Arc::new(verifier));
    }

    /// The file's text, users in order.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from("# made by `verge passwd FILE USER`\n");
        for (name, verifier) in &self.0 {
            let _ = writeln!(text, "{name}:{verifier}");
        }
        text
    }

    /// The verifier of a user.
    #[must_use]
    pub fn get(&self, name: &UserName) -> Option<&Arc<Verifier>> {
        self.0.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The iterations of a user, for those that do not exist.
    pub(super) fn iterations(&self) -> u32 {
        self.0.values().next().map_or(ITERATIONS_DEFAULT, |verifier| verifier.iterations.get())
    }
}

/// A name that a file can hold: a line that begins with `#` is a comment.
#[must_use]
pub fn prepare(name: &str) -> Option<UserName> {
    name::prepare(name).filter(|name| !name.as_str().starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::super::verifier::ITERATIONS_MIN;
    use super::*;

    #[test]
    fn a_file_reads_back_as_written() {
        let mut users = Users::default();
        for (name, password) in [("car-17", "a"), ("Zoë: x", "b")] {
            let verifier = Verifier::of_password(password.as_bytes(), b"s", ITERATIONS_MIN);
            users.put(prepare(name).unwrap(), verifier.unwrap());
        }
        let text = users.to_text();
        assert_eq!(Users::parse(&format!("\n{text}\n# end\r\n")), Ok(users.clone()));
        assert!(users.get(&prepare("car-17").unwrap()).unwrap().is_password(b"a"));
        assert_eq!((users.get(&prepare("car-18").unwrap()), users.len()), (None, 2));

        let line = text.lines().find(|line| line.starts_with("car")).unwrap();
        let rows = [
            (format!("{line}\n{line}"), 2, LineError::Twice),
            ("car-17:secret".to_owned(), 1, LineError::Form),
            (line.replace("car-17", "car\u{7}"), 1, LineError::Name),
            (line.replace("$4096", "$1"), 1, LineError::Verifier(VerifierError::Iterations)),
            (line[..line.len() - 9].to_owned(), 1, LineError::Verifier(VerifierError::Form)),
        ];
        for (text, line, cause) in rows {
            assert_eq!(Users::parse(&text), Err(UsersError { line, cause }), "{text}");
        }
        assert_eq!(prepare("#x"), None);
    }
}
