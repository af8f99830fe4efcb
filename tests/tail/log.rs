//! Lines as kernels and log daemons write them, each packet with a number of its own.
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// What the kernel prints; the number is in the ports.
pub(crate) fn packet(number: u32) -> String {
    let (source, destination) = (number >> 16, number & 0xffff);
    format!(
        "drop: IN=eth0 OUT=cali1 MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 \
         TOS=0x00 PREC=0x00 TTL=63 ID={number} DF PROTO=TCP SPT={source} DPT={destination} WINDOW=64240 RES=0x00 SYN \
         URGP=0 "
    )
}

/// As rsyslog writes it.
pub(crate) fn line(number: u32) -> String {
    format!("{:.6} worker-1 kernel: [12345.678901] {}\n", Timestamp::now(), packet(number))
}

/// A log daemon: keeps its file open, whatever becomes of the name, until it is told.
pub(crate) struct Daemon {
    path: PathBuf,
    file: File,
    pub(crate) written: u32,
}

impl Daemon {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: open(path), written: 0 }
    }

    pub(crate) fn write(&mut self, count: u32) {
        for _ in 0..count {
            self.written += 1;
            self.file.write_all(line(self.written).as_bytes()).expect("the disk has room");
        }
    }

    /// SIGHUP.
    pub(crate) fn reopen(&mut self) {
        self.file = open(&self.path);
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("the folder is there")
}
