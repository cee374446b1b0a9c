//! Words of an answer's body for the log, and never key.
//!
//! Servers like to quote the request when they refuse it, `key_buffer` included. So only what looks like prose is kept:
//! words of 3 to 16 letters, lower case but for the first. Base64 of 16 octets and more is a longer run, so that none
//! of it passes; of streams with smaller chunks no excerpt is made at all.

/// Longest word that is kept.
const LONGEST_WORD: usize = 16;
const SHORTEST_WORD: usize = 3;
/// Smallest chunk whose base64 cannot pass for a word.
const SMALLEST_CHUNK: u32 = 16;
/// Most characters in all.
const LONGEST: usize = 200;

/// Whether excerpts may be made of answers to chunks of this size.
pub(super) fn allowed(chunk_size: u32) -> bool {
    chunk_size >= SMALLEST_CHUNK
}

/// Collects words from octets that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    text: String,
    word: [u8; LONGEST_WORD],
    length: usize,
    /// The word in progress is not one to keep.
    spoiled: bool,
}

impl Excerpt {
    pub(super) fn take(&mut self, octets: &[u8]) {
        for octet in octets {
            if octet.is_ascii_whitespace() || b"\"'{}[]()<>,:;.!?".contains(octet) {
                self.end_word();
            } else {
                self.letter(*octet);
            }
        }
    }

    /// What was collected. A word that was not finished is left out: it may be the beginning of something longer.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn letter(&mut self, octet: u8) {
        let fits = octet.is_ascii_lowercase() || (self.length == 0 && octet.is_ascii_uppercase());
        match self.word.get_mut(self.length) {
            Some(place) if fits && !self.spoiled => {
                *place = octet;
                self.length += 1;
            }
            _ => self.spoiled = true,
        }
    }

    fn end_word(&mut self) {
        let word = self.word.get(..self.length).filter(|word| !self.spoiled && word.len() >= SHORTEST_WORD);
        if let Some(word) = word.and_then(|word| std::str::from_utf8(word).ok())
            && self.text.len() + 1 + word.len() <= LONGEST
        {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
        self.length = 0;
        self.spoiled = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Excerpt;

    fn excerpt(body: &[u8]) -> String {
        let mut excerpt = Excerpt::default();
        excerpt.take(body);
        excerpt.finish()
    }

    #[test]
    fn the_reason_is_kept() {
        let body = br#"{"status": 5, "detail": "Unknown key stream, not opened here."}"#;
        assert_eq!(excerpt(body), "status detail Unknown key stream not opened here");
    }

    #[test]
    fn an_excerpt_stays_short() {
        assert!(excerpt("word ".repeat(10_000).as_bytes()).len() <= 200);
    }

    proptest! {
        #[test]
        fn no_part_of_a_quoted_key_reaches_the_log(key in prop::collection::vec(any::<u8>(), 16..100), cut in any::<prop::sample::Index>(), letters in any::<bool>()) {
            // The worst case: base64 that consists of small letters only.
            let mut base64 = base64_turbo::STANDARD.encode(&key).replace('=', "");
            if letters {
                base64 = base64.bytes().map(|octet| char::from(b'a' + octet % 26)).collect();
            }
            let escaped = base64.replace('/', "\\/");
            for quoted in [format!("{{\"input\":\"{base64}\"}}"), format!("{{\"input\":\"{escaped}\"}}")] {
                let cut = "{\"input\":\"".len() + cut.index(quoted.len() - 12);
                prop_assert_eq!(excerpt(quoted.as_bytes()), "input");
                // An answer that is cut short.
                prop_assert_eq!(excerpt(&quoted.as_bytes()[..cut]), "input");
            }
            let hex: String = key.iter().map(|octet| format!("{octet:02x} ")).collect();
            prop_assert_eq!(excerpt(hex.as_bytes()), "");
            prop_assert_eq!(excerpt(format!("{key:?}").as_bytes()), "");
        }
    }
}
