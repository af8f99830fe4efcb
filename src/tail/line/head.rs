//! What stands between the stamp and the packet: the host, who speaks, and the log prefix.
//!
//! Anybody may have a log daemon write a line that looks like the kernel's. So a line another program is named on is
//! nobody's drop; where the form of the log names no program at all, the host and the prefix are all there may be.
use crate::tail::stamp::{Stamp, skip_uptime};

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// The kernel, by the tag of the line.
    Kernel,
    /// The form of the log does not tell.
    Nobody,
}

/// What was said before the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) spoken: Spoken,
    pub(super) prefix: &'a str,
}

/// Host, and `kern.warn` of BusyBox, may stand before the tag.
const BEFORE_TAG: usize = 2;

/// Takes apart what follows the stamp; none where another program speaks.
pub(super) fn said(stamp: Stamp, rest: &str) -> Option<Said<'_>> {
    if let Some(text) = kernels(rest) {
        return Some(Said { spoken: Spoken::Kernel, prefix: skip_uptime(text) });
    }
    match stamp {
        // dmesg: nobody but the kernel stamps like this.
        Stamp::Kernel(_) => Some(Said { spoken: Spoken::Kernel, prefix: rest }),
        Stamp::Daemon(_) => {
            let (_, text) = word(rest)?;
            let text = skip_uptime(text);
            let tag = word(text).map_or("", |(tag, _)| tag);
            (!is_program(tag)).then_some(Said { spoken: Spoken::Nobody, prefix: text })
        }
    }
}

/// What follows `kernel:`, or `kernel - - -` (RFC 5424).
fn kernels(rest: &str) -> Option<&str> {
    let mut text = rest;
    for _ in 0..=BEFORE_TAG {
        let (tag, after) = word(text)?;
        if matches!(tag, "kernel:" | "kernel[0]:") {
            return Some(after);
        }
        if tag == "kernel" {
            return after.trim_start().strip_prefix("- - -");
        }
        text = after;
    }
    None
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// `sshd[123]:`.
fn is_program(word: &str) -> bool {
    let number = word.strip_suffix("]:").and_then(|word| word.rsplit_once('['));
    number.is_some_and(|(name, number)| {
        !name.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
