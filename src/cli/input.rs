//! Image files, and work on many of them at a time.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read},
    path::Path,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use crate::{
    config::Config,
    domain::{Lane, Turn},
    pipeline::DecodeLimits,
};

/// What one file may cost: a photo as cameras take them.
pub const ONE_FILE: DecodeLimits = DecodeLimits {
    max_bytes: 64 << 20,
    min_side: 16,
    max_side: 16_384,
    max_pixels: 64 << 20,
    max_scans: 32,
    max_metadata_bytes: 4 << 20,
    max_sample_planes: 1 << 30,
};
/// What each of many files may cost; [`IN_FLIGHT`] of them, decoded, take 3 GiB at worst.
pub const MANY_FILES: DecodeLimits =
    DecodeLimits { max_bytes: 16 << 20, max_pixels: 16 << 20, max_sample_planes: 1 << 28, ..ONE_FILE };
/// Images on their way at a time: two batches, so that the device never waits for one.
pub const IN_FLIGHT: usize = 64;

/// Waiting for the other images is part of it.
const DEADLINE: Duration = Duration::from_secs(600);

pub fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

/// Of work that a command does for whoever gave it.
pub fn turn(lane: Lane) -> Turn {
    Turn::own(lane, deadline())
}

/// The defaults, with other limits for images: on a command line whoever gives the files pays for them.
pub fn config(decode: DecodeLimits) -> Result<Config, crate::config::ConfigFaults> {
    Config::load(None).map(|config| Config { decode, ..config })
}

/// A file's bytes; one more than `most` at most, which decoding then refuses.
///
/// # Errors
/// Also for what is no file, such as a folder, or a pipe, which could keep its reader waiting for ever.
pub fn read(path: &Path, most: usize) -> io::Result<Bytes> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Whether a file's name says that it is an image that can be read here.
pub fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let known = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "jp2", "j2k", "j2c", "jpc"];
    known.contains(&extension.as_str())
}

/// Starts `work` on every item in turn, at most [`IN_FLIGHT`] at a time, and hands each result to `done` as it comes.
///
/// # Errors
/// When some work panicked.
pub async fn in_flight<T, W, R>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> W,
    mut done: impl FnMut(R),
) -> Result<(), JoinError>
where
    W: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let mut tasks = JoinSet::new();
    for item in items {
        if tasks.len() >= IN_FLIGHT
            && let Some(result) = tasks.join_next().await
        {
            done(result?);
        }
        tasks.spawn(work(item));
    }
    while let Some(result) = tasks.join_next().await {
        done(result?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use super::*;

    #[tokio::test]
    async fn all_items_are_done_and_few_at_a_time() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut results = Vec::new();
        let work = |item: usize| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, SeqCst);
                item
            }
        };
        in_flight(0..1000, work, |item| results.push(item)).await.unwrap();
        results.sort_unstable();
        assert_eq!(results, (0..1000).collect::<Vec<_>>());
        assert!((2..=IN_FLIGHT).contains(&most.load(SeqCst)), "{most:?}");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, file) = (dir.path().join("pipe.png"), dir.path().join("file.png"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::write(&file, [1; 9]).unwrap();
        let (told, answer) = std::sync::mpsc::sync_channel(1);
        let folder = dir.path().to_path_buf();
        std::thread::spawn(move || {
            for path in [folder, pipe] {
                told.send(read(&path, 4).unwrap_err().to_string()).unwrap();
            }
        });
        for _ in 0..2 {
            assert_eq!(answer.recv_timeout(Duration::from_secs(10)).unwrap(), "expected a regular file");
        }
        assert_eq!(read(&file, 4).unwrap().len(), 5);
    }

    #[test]
    fn images_are_known_by_name() {
        for name in ["a.jpg", "b.JPEG", "x/c.png", "d.webp", "e.JFIF", "f.jpe"] {
            assert!(is_image(Path::new(name)), "{name}");
        }
        for name in ["a", "a.txt", ".jpg", "a.jpg.tmp"] {
            assert!(!is_image(Path::new(name)), "{name}");
        }
    }
}
