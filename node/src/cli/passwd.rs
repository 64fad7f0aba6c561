//! `verge passwd`: users of a node, in a file without passwords.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use verge_broker_core::authn::users::{self, Users};
use verge_broker_core::authn::verifier::{ITERATIONS_DEFAULT, SALT_BYTES, Verifier};

use super::Failure;
use crate::authn::read_users;

/// Longest password, in bytes: what a CONNECT has room for.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Arguments of `verge passwd`.
#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// The file; made if it is not there, readable by its owner only
    file: PathBuf,
    /// The user: added, or given another password
    user: String,
    /// How often the hash is taken; more makes guessing, and connecting, slower
    #[arg(long, value_name = "N", default_value_t = ITERATIONS_DEFAULT)]
    iterations: u32,
}

/// Reads a password and puts the user into the file.
///
/// # Errors
/// What is in the way.
pub fn run(args: &PasswdArgs) -> Result<(), Failure> {
    let name = users::prepare(&args.user)
        .ok_or_else(|| Failure::setup(format!("{:?} is no user name (RFC 4013)", args.user)))?;
    let mut users = match fs::exists(&args.file) {
        Ok(true) => read_users(&args.file).map_err(Failure::setup)?,
        Ok(false) => Users::default(),
        Err(error) => return Err(Failure::setup(format!("{}: {error}", args.file.display()))),
    };
    let password = read_password().map_err(Failure::setup)?;
    let salt: [u8; SALT_BYTES] = rand::random();
    let verifier = Verifier::of_password(password.as_bytes(), &salt, args.iterations)
        .map_err(Failure::setup)?;
    users.put(name, verifier);
    write(&args.file, &users.to_text())
        .map_err(|error| Failure::failed(format!("{}: {error}", args.file.display())))
}

/// Asks twice at a terminal; else takes the first line of standard input.
fn read_password() -> Result<String, String> {
    let password = if io::stdin().is_terminal() {
        let ask = |prompt| rpassword::prompt_password(prompt).map_err(|error| error.to_string());
        let password = ask("Password: ")?;
        if ask("Again: ")? != password {
            return Err("the passwords differ".to_owned());
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
        let end = line.trim_end_matches(['\r', '\n']).len();
        line.truncate(end);
        line
    };
    match password.len() {
        0 => Err("the password is empty".to_owned()),
        1..=PASSWORD_BYTES_MAX => Ok(password),
        _ => Err(format!("the password has more than {PASSWORD_BYTES_MAX} bytes")),
    }
}

/// Replaces the file at once: a node that reads it sees the old or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    // A temporary file is its owner's only, and stays so.
    file.persist(path)?;
    Ok(())
}
