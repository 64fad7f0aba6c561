//! `verge-cloud backup put` and `get`: backups of nodes in an object store.
//!
//! A backup is a directory with a manifest. In the store its files have one prefix, and the manifest
//! comes last: without it there is no backup there. Nothing is written over.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures::StreamExt;
use object_store::path::Path as Key;
use object_store::{
    Error as ObjectError, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, parse_url_opts,
};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;
use verge::backup::manifest::{FileEntry, MANIFEST};
use verge::backup::{BackupError, Manifest, Partial};

/// Bytes of one part of a large file: what a store takes at once.
const PART_BYTES: usize = 8 << 20;

/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// What to do with a backup.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Copy a backup from a directory to an object store
    Put(PutArgs),
    /// Copy a backup from an object store to a directory
    Get(GetArgs),
}

/// Options of `verge-cloud backup put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The backup, made by `verge backup`
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to: file:///directory/name, or s3://bucket/name in builds with the feature s3
    #[arg(value_name = "URL")]
    pub url: String,
}

/// Options of `verge-cloud backup get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Where from
    #[arg(value_name = "URL")]
    pub url: String,
    /// The directory that becomes the backup; it must not be there, or be empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Why a backup was not copied; one line.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No store is meant, or none that this build reaches.
    #[error("'{url}' cannot be reached by this build: {detail}")]
    Url {
        /// What was given.
        url: String,
        /// Why.
        detail: String,
    },
    /// Nothing is written over.
    #[error("{0}: a backup is there already: name another place")]
    Exists(String),
    /// There is no manifest.
    #[error("{0}: there is no backup there")]
    Missing(String),
    /// The store.
    #[error("{url}: {error}")]
    Store {
        /// Which.
        url: String,
        /// What it says.
        error: ObjectError,
    },
    /// The directory.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

/// A place in an object store.
struct Place<'a> {
    url: &'a str,
    store: Box<dyn ObjectStore>,
    prefix: Key,
}

impl<'a> Place<'a> {
    fn open(url: &'a str) -> Result<Self, CopyError> {
        let unreachable =
            |detail: String| CopyError::Url { url: url.to_owned(), detail: one_line(&detail) };
        let parsed = Url::parse(url).map_err(|error| unreachable(error.to_string()))?;
        // Credentials and regions are where the stores' own tools look for them.
        let settings = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
        let (store, prefix) =
            parse_url_opts(&parsed, settings).map_err(|error| unreachable(error.to_string()))?;
        Ok(Self { url, store, prefix })
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }

    fn failed(&self) -> impl Fn(ObjectError) -> CopyError {
        let url = self.url.to_owned();
        move |error| CopyError::Store { url: url.clone(), error }
    }

    /// The manifest's text, if there is a backup.
    async fn manifest(&self) -> Result<Option<Vec<u8>>, CopyError> {
        match self.store.get(&self.key(MANIFEST)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(self.failed())?.to_vec())),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed()(error)),
        }
    }

    async fn put(&self, path: &Path, file: &FileEntry) -> Result<(), CopyError> {
        let (io, name) =
            (|error| CopyError::Io { path: path.to_owned(), error }, file.name.as_str());
        // A file of one part needs none, and an empty one has none.
        if file.bytes <= PART_BYTES as u64 {
            let bytes = fs::read(path).await.map_err(io)?;
            let put = self.store.put(&self.key(name), PutPayload::from(bytes)).await;
            return put.map(drop).map_err(self.failed());
        }
        let mut file = File::open(path).await.map_err(io)?;
        let upload = self.store.put_multipart(&self.key(name)).await.map_err(self.failed())?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut buffer = vec![0; PART_BYTES];
        loop {
            let count = file.read(&mut buffer).await.map_err(io)?;
            if count == 0 {
                break;
            }
            upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(self.failed())?;
            upload.write(&buffer[..count]);
        }
        upload.finish().await.map_err(self.failed())?;
        Ok(())
    }

    async fn get(&self, file: &FileEntry, path: &Path) -> Result<(), CopyError> {
        let io = |error| CopyError::Io { path: path.to_owned(), error };
        let found = self.store.get(&self.key(&file.name)).await.map_err(self.failed())?;
        let mut chunks = found.into_stream();
        let mut out = File::create_new(path).await.map_err(io)?;
        while let Some(chunk) = chunks.next().await {
            out.write_all(&chunk.map_err(self.failed())?).await.map_err(io)?;
        }
        out.sync_all().await.map_err(io)
    }
}

/// Does it, and says what was done.
///
/// # Errors
/// One line. A backup that was not copied whole is none.
pub async fn run(command: &BackupCommand) -> Result<String, CopyError> {
    match command {
        BackupCommand::Put(args) => put(args).await,
        BackupCommand::Get(args) => get(args).await,
    }
}

async fn put(args: &PutArgs) -> Result<String, CopyError> {
    let PutArgs { dir, url } = args;
    let manifest = Manifest::read(dir)?;
    let place = Place::open(url)?;
    if place.manifest().await?.is_some() {
        return Err(CopyError::Exists(url.clone()));
    }
    for file in &manifest.files {
        file.check(dir)?;
        place.put(&dir.join(&file.name), file).await?;
    }
    let text = PutPayload::from(manifest.text());
    place.store.put(&place.key(MANIFEST), text).await.map_err(place.failed())?;
    Ok(said(&manifest, &dir.display().to_string(), url))
}

async fn get(args: &GetArgs) -> Result<String, CopyError> {
    let GetArgs { url, dir } = args;
    let place = Place::open(url)?;
    let text = place.manifest().await?.ok_or_else(|| CopyError::Missing(url.clone()))?;
    let manifest = Manifest::parse(Path::new(url), &text)?;
    let partial = Partial::new(dir)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| CopyError::Io { path, error }
    };
    fs::create_dir(partial.dir()).await.map_err(io(partial.dir()))?;
    for file in &manifest.files {
        place.get(file, &partial.dir().join(&file.name)).await?;
        file.check(partial.dir())?;
    }
    let path = partial.dir().join(MANIFEST);
    fs::write(&path, text).await.map_err(io(&path))?;
    partial.finish()?;
    Ok(said(&manifest, url, &dir.display().to_string()))
}

fn said(manifest: &Manifest, from: &str, to: &str) -> String {
    let Manifest { node_id, taken_at, files, bytes, .. } = manifest;
    let files = files.len();
    format!(
        "backup of node '{node_id}' as of {taken_at}: {files} files, {bytes} bytes, from {from} to {to}\n"
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
