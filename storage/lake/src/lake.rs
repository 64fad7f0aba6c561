//! Where the tables are: a directory, or a bucket.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

use deltalake::logstore::object_store_factories;
use deltalake::{DeltaResult, DeltaTableBuilder, DeltaTableError, ensure_table_uri};

/// A directory of tables, each a subdirectory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lake {
    /// A directory of this machine.
    Dir(PathBuf),
    /// An object store, `s3://bucket/prefix`; only in builds that can reach one.
    Bucket(String),
}

/// Why a text is no lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LakeError {
    /// The build has no object stores.
    #[error("lake '{0}': this build reaches no object stores; name a directory")]
    NoBuckets(String),
    /// Only `s3://` is known.
    #[error("lake '{0}': a lake is a directory or s3://bucket/prefix")]
    UnknownScheme(String),
    /// The directory is not there.
    #[error(
        "lake directory {} does not exist; name the one `verge-cloud run` writes with --lake",
        .0.display()
    )]
    Missing(PathBuf),
    /// The directory cannot be read.
    #[error("lake directory {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, String),
    /// The object store did not answer, or refused.
    #[error("lake '{0}': {1}")]
    Store(String, String),
}

impl Lake {
    /// The tables' names, in order: subdirectories, of a directory those with a Delta log.
    ///
    /// # Errors
    /// The lake is missing or unreadable.
    pub async fn tables(&self) -> Result<Vec<String>, LakeError> {
        let mut names = match self {
            Self::Dir(dir) => tables_of_dir(dir)?,
            Self::Bucket(url) => tables_of_bucket(url)
                .await
                .map_err(|error| LakeError::Store(url.clone(), one_line(&error.to_string())))?,
        };
        names.sort();
        Ok(names)
    }

    /// The directory of a table, if it is one of this machine.
    pub(crate) fn local_table(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Dir(dir) => Some(dir.join(name)),
            Self::Bucket(_) => None,
        }
    }

    /// What opens a table. Its directory is made if it is not there.
    pub(crate) fn table(&self, name: &str) -> DeltaResult<DeltaTableBuilder> {
        let address = match self {
            Self::Dir(dir) => {
                let dir = dir.join(name);
                dir.to_str().map(str::to_owned).ok_or_else(|| {
                    DeltaTableError::InvalidTableLocation(format!("{} is not UTF-8", dir.display()))
                })?
            }
            Self::Bucket(url) => format!("{}/{name}", url.trim_end_matches('/')),
        };
        DeltaTableBuilder::from_url(ensure_table_uri(address)?)
    }
}

impl FromStr for Lake {
    type Err = LakeError;

    fn from_str(text: &str) -> Result<Self, LakeError> {
        match text.split_once("://") {
            None => Ok(Self::Dir(PathBuf::from(text))),
            Some(("s3", _)) if reaches("s3") => Ok(Self::Bucket(text.to_owned())),
            Some(("s3", _)) => Err(LakeError::NoBuckets(text.to_owned())),
            Some(_) => Err(LakeError::UnknownScheme(text.to_owned())),
        }
    }
}

impl fmt::Display for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(dir) => dir.display().fmt(f),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

/// Whether an object store of this kind is built in.
fn reaches(scheme: &str) -> bool {
    object_store_factories().iter().any(|factory| factory.key().scheme() == scheme)
}

/// A text of a library, in one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn tables_of_dir(dir: &Path) -> Result<Vec<String>, LakeError> {
    let unreadable = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            LakeError::Missing(dir.to_owned())
        } else {
            LakeError::Unreadable(dir.to_owned(), error.to_string())
        }
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("_delta_log").is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

async fn tables_of_bucket(url: &str) -> DeltaResult<Vec<String>> {
    let root = DeltaTableBuilder::from_url(ensure_table_uri(url)?)?.build()?;
    let listed = root.object_store().list_with_delimiter(None).await?;
    let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_is_a_directory_or_a_bucket_this_build_can_reach() {
        assert_eq!("./lake".parse(), Ok(Lake::Dir("./lake".into())));
        let bucket: Result<Lake, LakeError> = "s3://vehicles/lake".parse();
        if reaches("s3") {
            assert_eq!(bucket, Ok(Lake::Bucket("s3://vehicles/lake".into())));
        } else {
            let error = bucket.unwrap_err().to_string();
            assert!(error.contains("reaches no object stores"), "{error}");
        }
        let error = "ftp://x".parse::<Lake>().unwrap_err().to_string();
        assert_eq!(error, "lake 'ftp://x': a lake is a directory or s3://bucket/prefix");
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = Lake::Dir("/no/such/lake".into()).tables().await.unwrap_err().to_string();
        assert!(error.starts_with("lake directory /no/such/lake does not exist"), "{error}");
    }
}
