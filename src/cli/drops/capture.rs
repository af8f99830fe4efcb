//! The file for Wireshark.
use std::fs::File;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use crate::cli::CliError;
use crate::drops::line::Line;
use crate::drops::pcap::{Capture, Packet};

/// A capture on disk.
#[derive(Debug)]
pub(super) struct CaptureFile {
    name: String,
    capture: Capture<File>,
}

impl CaptureFile {
    /// Starts one; what was in the file is gone.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let started = File::create(path).and_then(Capture::start);
        let capture = started.map_err(|error| CliError::io(format!("writing {name}"), error))?;
        Ok(Self { name, capture })
    }

    /// Adds a packet, if there are bytes of it.
    pub(super) fn add(&mut self, line: &Line) -> Result<(), CliError> {
        let bytes =
            line.sample.as_deref().and_then(|text| data_encoding::HEXLOWER.decode(text.as_bytes()).ok());
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        let at: Timestamp = line.time.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let packet = Packet {
            seconds: u32::try_from(at.as_second()).unwrap_or_default(),
            nanoseconds: u32::try_from(at.subsec_nanosecond()).unwrap_or_default(),
            bytes: &bytes,
            length: line.length.unwrap_or_default(),
        };
        self.capture.add(packet).map_err(|error| CliError::io(format!("writing {}", self.name), error))
    }
}
