//! Configuration: role profile < file < environment < command line.
//!
//! A file is TOML with the sections of [`sections`]. `VERGE__SECTION__KEY` in the environment
//! overrides it, `--set section.key=VALUE` and the other options override both. An unknown key is
//! an error that names the nearest known one; every error is one line.

pub mod check;
pub mod compare;
pub mod error;
pub mod explain;
pub mod extensions;
pub mod load;
pub mod profile;
pub mod sections;
pub mod text;

pub use check::check;
pub use compare::{differences, take_over};
pub use error::{ConfigError, Source};
pub use explain::explain;
pub use load::{Loaded, Loader};
pub use sections::Config;
