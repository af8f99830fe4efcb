//! Bytes into lines. Pure; holds the line that has no end yet, and never more than [`LONGEST`] of it.
use std::borrow::Cow;

/// Many times what the kernel prints in one line (`LOG_LINE_MAX`, 1024 bytes).
const LONGEST: usize = 16 * 1024;

/// What has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// Bytes since the last end, kept or not.
    pending: u64,
    overflown: bool,
    too_long: u64,
}

impl Lines {
    pub(super) fn take(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.hold(line);
            self.finish(each);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.hold(bytes);
    }

    /// The line ends here.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(&str)) {
        self.pending = 0;
        if std::mem::take(&mut self.overflown) {
            self.too_long += 1;
        } else if !self.partial.is_empty() {
            let line: Cow<'_, str> = String::from_utf8_lossy(&self.partial);
            each(line.trim_end_matches('\r'));
        }
        self.partial.clear();
    }

    /// Bytes of the line that has not ended.
    pub(super) const fn pending(&self) -> u64 {
        self.pending
    }

    /// Lines that were not kept, since this was asked last.
    pub(super) fn take_too_long(&mut self) -> u64 {
        std::mem::take(&mut self.too_long)
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.pending += bytes.len() as u64;
        // A writer that does not append leaves a hole when its file is truncated, which reads as zeros.
        let kept = bytes.iter().copied().filter(|byte| *byte != 0);
        let room = LONGEST.saturating_sub(self.partial.len());
        let before = self.partial.len();
        self.partial.extend(kept.clone().take(room));
        self.overflown |= self.partial.len() - before == room && kept.clone().nth(room).is_some();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<String>, Lines) {
        let (mut seen, mut lines) = (Vec::new(), Lines::default());
        for chunk in chunks {
            lines.take(chunk, &mut |line| seen.push(line.to_owned()));
        }
        (seen, lines)
    }

    #[test]
    fn a_line_in_pieces_is_one_line_and_an_unfinished_one_is_none() {
        let (seen, rest) = lines(&[b"on", b"e\ntw", b"o\r\n\nthr"]);
        assert_eq!((seen, rest.pending()), (vec!["one".to_owned(), "two".to_owned()], 3));
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_it_may_and_the_next_one_is_read() {
        let huge = vec![b'x'; 10 * LONGEST];
        let (seen, mut rest) = lines(&[&huge, &huge, b"x\nshort\n"]);
        assert_eq!((seen, rest.take_too_long()), (vec!["short".to_owned()], 1));
        assert!(rest.partial.capacity() <= 2 * LONGEST);
    }

    #[test]
    fn a_hole_of_zeros_before_a_line_is_no_part_of_it() {
        let (seen, mut rest) = lines(&[&[0; 3 * LONGEST], b"line\n"]);
        assert_eq!((seen, rest.take_too_long()), (vec!["line".to_owned()], 0));
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_does_not_matter(text in "[a-c\\n]{0,80}", cut in 1_usize..9) {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let (seen, rest) = lines(&chunks);
            let mut wanted: Vec<&str> = text.split('\n').collect();
            let last = wanted.pop().unwrap();
            wanted.retain(|line| !line.is_empty());
            prop_assert_eq!(seen, wanted);
            prop_assert_eq!(rest.pending(), last.len() as u64);
        }
    }
}
