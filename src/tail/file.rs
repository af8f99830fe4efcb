//! Follows a log file through rotations and restarts.
//!
//! A file is known by its beginning (a [`Mark`]), not by its name or inode alone: `logrotate` renames or copies,
//! inodes are reused, and what we left off in may since have another name. The old file is read on for a while after
//! a rename, because its writer notices late. What was appended before a copy and truncation is read from the copy.
//! An unfinished line counts as unread.
mod lines;
mod print;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::source::{Listener, Look, Loss, SourceError, Told};
use lines::Lines;
use print::Print;

/// How long the writer may go on with a file that has lost its name.
const LINGER: Duration = Duration::from_secs(60);
/// Read at once.
const CHUNK: usize = 64 * 1024;
/// Read of one file before others get their turn, and positions are kept.
const SHARE: usize = 16;

/// Where we left off in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    inode: u64,
    print: Print,
    /// Of the first line not read.
    offset: u64,
}

/// A log file that is followed.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    current: Option<Opened>,
    leaving: Vec<(Instant, Opened)>,
    marks: Vec<Mark>,
    losses: Vec<Loss>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    inode: u64,
    print: Print,
    offset: u64,
    lines: Lines,
}

impl Follower {
    /// Follows a path, which need not exist yet, from where it was left.
    pub const fn new(path: PathBuf, marks: Vec<Mark>) -> Self {
        Self { path, current: None, leaving: Vec::new(), marks, losses: Vec::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is there a file?
    pub const fn stands(&self) -> bool {
        self.current.is_some()
    }

    /// Reads on.
    pub fn look(&mut self, now: Instant, listener: &mut Listener<'_>) -> Result<Look, SourceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SourceError { doing: "reading", path, source }
        };
        let mut look = Look::Whole;
        self.resume(now).map_err(failed(&self.path))?;
        self.change_files(now).map_err(failed(&self.path))?;
        for (since, opened) in &mut self.leaving {
            if opened.read(listener).map_err(failed(&self.path))? == Look::Part {
                look = Look::Part;
                *since = now;
            }
        }
        if let Some(current) = &mut self.current
            && current.read(listener).map_err(failed(&self.path))? == Look::Part
        {
            look = Look::Part;
        }
        self.part(now, listener);
        Ok(look)
    }

    /// Where everything was left.
    pub fn marks(&self) -> Vec<Mark> {
        let leaving = self.leaving.iter().map(|(_, opened)| opened.mark());
        self.current.iter().map(Opened::mark).chain(leaving).chain(self.marks.iter().cloned()).collect()
    }

    /// What was lost since this was asked last.
    pub fn losses(&mut self) -> Vec<Loss> {
        let opened = self.leaving.iter_mut().map(|(_, opened)| opened).chain(self.current.as_mut());
        let long: u64 = opened.map(|opened| opened.lines.take_too_long()).sum();
        let mut losses = std::mem::take(&mut self.losses);
        losses.extend((0..long).map(|_| Loss::TooLong));
        losses
    }

    /// Finds what earlier looks, or an earlier run, left unread.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        let marks = std::mem::take(&mut self.marks);
        for mark in marks {
            if self.current.is_none()
                && let Some(opened) = Opened::at(&self.path, &mark)?
            {
                self.current = Some(opened);
            } else if let Some(opened) = self.elsewhere(&mark)? {
                self.leaving.push((now, opened));
            } else if mark.offset > 0 {
                self.losses.push(Loss::RotatedAway);
            }
        }
        Ok(())
    }

    /// The file a mark was made in, under another name of the same folder.
    fn elsewhere(&self, mark: &Mark) -> io::Result<Option<Opened>> {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        let stem = self.path.file_stem().unwrap_or_default().as_encoded_bytes();
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let entries = match std::fs::read_dir(folder.unwrap_or_else(|| Path::new("."))) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut found = None;
        for entry in entries {
            let entry = entry?;
            let other = entry.file_name();
            // kern.log.1, kern.log-20251203, kern-20251203.log (logrotate's `extension`).
            if other.as_encoded_bytes() == name || !other.as_encoded_bytes().starts_with(stem) {
                continue;
            }
            if let Some(opened) = Opened::at(&entry.path(), mark)? {
                let same = opened.inode == mark.inode;
                found = Some(opened);
                if same {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Notices what was renamed, truncated, or has come.
    fn change_files(&mut self, now: Instant) -> io::Result<()> {
        let there = match self.path.metadata() {
            Ok(there) => there.ino(),
            // Renamed, and the next file not made yet: there may be more to come in the old one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.current.take() {
            Some(current) if current.inode == there && current.is_as_before()? => {
                self.current = Some(current)
            }
            Some(current) if current.inode == there => {
                match self.elsewhere(&current.mark())? {
                    Some(copy) => self.leaving.push((now, copy)),
                    None => self.losses.push(Loss::RotatedAway),
                }
                self.current = Opened::new(&self.path)?;
            }
            Some(renamed) => {
                self.leaving.push((now, renamed));
                self.current = Opened::new(&self.path)?;
            }
            None => self.current = Opened::new(&self.path)?,
        }
        Ok(())
    }

    /// Lets go of files nobody has written to for long enough; the line they end in needs no end then.
    fn part(&mut self, now: Instant, listener: &mut Listener<'_>) {
        for (_, mut opened) in
            self.leaving.extract_if(.., |(since, _)| now.saturating_duration_since(*since) >= LINGER)
        {
            opened.lines.finish(&mut |line| listener(Told::Line(line)));
        }
    }
}

impl Opened {
    /// Opens a file to be read from its beginning, if there is one.
    fn new(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let print = Print::of(&file)?;
        Ok(Some(Self { file, inode, print, offset: 0, lines: Lines::default() }))
    }

    /// Opens a file if a mark was made in it.
    fn at(path: &Path, mark: &Mark) -> io::Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        let Some(opened) = Self::new(path)? else { return Ok(None) };
        let whole = opened.file.metadata()?.len() >= mark.offset;
        // An empty beginning is everybody's.
        let known = !mark.print.is_empty() || opened.inode == mark.inode;
        if !(whole && known && mark.print.fits(&opened.file)?) {
            return Ok(None);
        }
        Ok(Some(Self { offset: mark.offset, ..opened }))
    }

    fn mark(&self) -> Mark {
        Mark { inode: self.inode, print: self.print.clone(), offset: self.offset - self.lines.pending() }
    }

    /// Does it still begin as it did, and reach as far as we read?
    fn is_as_before(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() >= self.offset && self.print.fits(&self.file)?)
    }

    fn read(&mut self, listener: &mut Listener<'_>) -> io::Result<Look> {
        if !self.print.is_full() {
            self.print = Print::of(&self.file)?;
        }
        let mut chunk = vec![0; CHUNK];
        for _ in 0..SHARE {
            let length = match self.file.read_at(&mut chunk, self.offset) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let read = chunk.get(..length).unwrap_or_default();
            self.offset += read.len() as u64;
            self.lines.take(read, &mut |line| listener(Told::Line(line)));
            if length < CHUNK {
                return Ok(Look::Whole);
            }
        }
        Ok(Look::Part)
    }
}

#[cfg(test)]
mod tests;
