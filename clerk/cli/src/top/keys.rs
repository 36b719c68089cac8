//! What was typed.

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Sort,
}

const ESCAPE: u8 = 0x1b;
/// No key sends more: the rest of what begins like one is dropped.
const SEQUENCE_MAX: usize = 16;

/// Makes keys of bytes. An arrow is several bytes that begin with that of Esc, and they may come apart.
#[derive(Debug, Default)]
pub(super) struct Decoder(Vec<u8>);

impl Decoder {
    /// Whether it waits for the rest of a key.
    pub(super) fn is_amid(&self) -> bool {
        !self.0.is_empty()
    }

    /// Nothing followed: an Esc alone is the key of that name.
    pub(super) fn end(&mut self) -> Vec<Key> {
        let begun = std::mem::take(&mut self.0);
        if begun == [ESCAPE] { vec![Key::Quit] } else { Vec::new() }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.one(*byte)).collect()
    }

    fn one(&mut self, byte: u8) -> Option<Key> {
        match (self.0.as_slice(), byte) {
            ([], ESCAPE) => {
                self.0.push(byte);
                None
            }
            ([], _) => letter(byte),
            ([_], b'[' | b'O') => {
                self.0.push(byte);
                None
            }
            // Alt and a letter mean nothing; two Escs are impatience.
            ([_], _) => {
                self.0.clear();
                (byte == ESCAPE).then_some(Key::Quit)
            }
            (begun, 0x40..=0x7e) => {
                let key = sequence(&begun[2..], byte);
                self.0.clear();
                key
            }
            (begun, _) if begun.len() >= SEQUENCE_MAX => {
                self.0.clear();
                None
            }
            _ => {
                self.0.push(byte);
                None
            }
        }
    }
}

fn letter(byte: u8) -> Option<Key> {
    match byte {
        b'q' | b'Q' => Some(Key::Quit),
        b'k' => Some(Key::Up),
        b'j' | b'\r' | b'\n' => Some(Key::Down),
        b'b' => Some(Key::PageUp),
        b' ' | b'f' => Some(Key::PageDown),
        b'g' => Some(Key::First),
        b'G' => Some(Key::Last),
        b's' => Some(Key::Sort),
        _ => None,
    }
}

fn sequence(parameters: &[u8], last: u8) -> Option<Key> {
    match (parameters, last) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::First),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::Last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Key};

    #[test]
    fn keys_are_told_also_if_their_bytes_come_apart() {
        use Key::{Down, First, Last, PageDown, PageUp, Quit, Sort, Up};
        let bytes = b"jk\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~sx\x1b[1;5Dq";
        let expected = [Down, Up, Up, Down, PageUp, PageDown, First, Last, Sort, Quit];
        assert_eq!(Decoder::default().take(bytes), expected);
        let mut decoder = Decoder::default();
        let one_by_one: Vec<Key> = bytes.iter().flat_map(|byte| decoder.take(&[*byte])).collect();
        assert_eq!(one_by_one, expected);
        assert!(!decoder.is_amid());
    }

    #[test]
    fn an_escape_alone_is_a_key_and_a_sequence_that_never_ends_is_dropped() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.take(b"\x1b"), []);
        assert!(decoder.is_amid());
        assert_eq!(decoder.end(), [Key::Quit]);
        assert_eq!(decoder.take(b"\x1b[1"), []);
        assert_eq!(decoder.end(), [], "the rest of an arrow never came");
        assert_eq!(decoder.take(b"\x1b[11111111111111111111111"), []);
        assert!(!decoder.is_amid());
        assert_eq!(decoder.take(b"q"), [Key::Quit]);
    }
}
