//! The signature a body carries in itself, found and taken out byte for byte.
//!
//! The rule, for senders in any language: take the body without its `signature`, sign those bytes, and put the member
//! in. Which bytes are left when it is taken out again:
//!
//! - A member counts when the body is one JSON object, the member is the object's own (not one of an object inside it)
//!   and its name, with escapes undone, is `signature`. Two of them are refused. `null` is no signature and stays.
//! - The member goes from the opening quote of its name to the end of its value.
//! - With it goes one comma: the one **before** it and all white space after that comma; or, when it is the first
//!   member, the comma **after** it and all white space after that comma.
//! - Nothing else is touched: no white space, no order, no number, no escape.
//!
//! So `{"a":1,"signature":"…"}`, `{"signature":"…","a":1}` and the same over several lines with any indent leave what
//! serializing the object without the member leaves.

use std::borrow::Cow;
use std::ops::Range;

/// Why a body with two signatures is refused.
pub const DOUBLED: &str = "the body has two signatures";
const NO_OBJECT: &str = "the body is no JSON object";
const NO_TEXT: &str = "the body's signature is no text";

/// A body and its own signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The signature as it stands between its quotes.
    pub signature: Option<Vec<u8>>,
    /// The body without the member.
    pub rest: Cow<'a, [u8]>,
    /// Where the value stands, quotes included; where the object ends when there is none.
    value: Range<usize>,
    /// Whether the object has no member at all.
    is_empty: bool,
}

/// Parts a body from its signature.
pub fn split(body: &[u8]) -> Result<Split<'_>, &'static str> {
    let mut scanner = Scanner { bytes: body, at: 0 };
    scanner.space();
    scanner.take(b'{')?;
    scanner.space();
    let mut found: Option<(Range<usize>, Range<usize>)> = None;
    let mut is_empty = true;
    // Where the last comma stands, before the member that is read.
    let mut comma: Option<usize> = None;
    if scanner.peek() != Some(b'}') {
        is_empty = false;
        loop {
            scanner.space();
            let start = scanner.at;
            let name = scanner.string()?;
            scanner.space();
            scanner.take(b':')?;
            scanner.space();
            let value = scanner.value()?;
            let end = scanner.at;
            scanner.space();
            let follows = scanner.peek() == Some(b',');
            if is_signature(&body[name]) && &body[value.clone()] != b"null" {
                if found.is_some() {
                    return Err(DOUBLED);
                }
                let member = match comma {
                    Some(comma) => comma..end,
                    None if follows => start..after_comma(body, scanner.at),
                    None => start..end,
                };
                found = Some((member, value));
            }
            if !follows {
                break;
            }
            comma = Some(scanner.at);
            scanner.at += 1;
        }
    }
    let end = scanner.at;
    scanner.take(b'}')?;
    scanner.space();
    if scanner.at != body.len() {
        return Err(NO_OBJECT);
    }
    let Some((member, value)) = found else {
        return Ok(Split { signature: None, rest: Cow::Borrowed(body), value: end..end, is_empty });
    };
    let text = body[value.clone()].strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).ok_or(NO_TEXT)?;
    let rest = [&body[..member.start], &body[member.end..]].concat();
    Ok(Split { signature: Some(text.to_vec()), rest: Cow::Owned(rest), value, is_empty })
}

/// Puts a signature, which needs no escapes, into the place `split` found.
pub(super) fn insert(body: &[u8], split: &Split<'_>, signature: &str) -> Result<Vec<u8>, &'static str> {
    let (before, after) = (&body[..split.value.start], &body[split.value.end..]);
    let value = format!("\"{signature}\"");
    if split.signature.is_some() {
        return Ok([before, value.as_bytes(), after].concat());
    }
    // White space before the brace stays there: it was signed with it.
    let kept = before.len() - before.iter().rev().take_while(|byte| is_space(**byte)).count();
    let comma = if split.is_empty { "" } else { "," };
    let member = format!("{comma}\"signature\":{value}");
    Ok([&before[..kept], member.as_bytes(), &before[kept..], after].concat())
}

fn after_comma(body: &[u8], comma: usize) -> usize {
    comma + 1 + body[comma + 1..].iter().take_while(|byte| is_space(**byte)).count()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Whether a name between its quotes says `signature`, written with escapes or without.
fn is_signature(name: &[u8]) -> bool {
    const SIGNATURE: &[u8] = b"signature";
    let text = &name[1..name.len() - 1];
    if !text.contains(&b'\\') {
        return text == SIGNATURE;
    }
    // A letter is at most the six characters of an escape.
    text.len() <= 6 * SIGNATURE.len()
        && serde_json::from_slice::<String>(name).is_ok_and(|name| name.as_bytes() == SIGNATURE)
}

/// Walks over JSON without reading it. It passes what a parser would refuse; the parser that follows does refuse it.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), &'static str> {
        if self.peek() != Some(byte) {
            return Err(NO_OBJECT);
        }
        self.at += 1;
        Ok(())
    }

    /// Steps over a string and says where it stood, quotes included.
    fn string(&mut self) -> Result<Range<usize>, &'static str> {
        let start = self.at;
        self.take(b'"')?;
        loop {
            match self.peek().ok_or(NO_OBJECT)? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(start..self.at)
    }

    /// Steps over a value, whatever is in it, without a stack that a sender could exhaust.
    fn value(&mut self) -> Result<Range<usize>, &'static str> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(NO_OBJECT)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                byte if depth > 0 && (is_space(byte) || matches!(byte, b',' | b':')) => {
                    self.at += 1;
                    continue;
                }
                b',' | b':' | b'}' | b']' => return Err(NO_OBJECT),
                byte if is_space(byte) => return Err(NO_OBJECT),
                _ => self.scalar(),
            }
            if depth == 0 {
                return Ok(start..self.at);
            }
        }
    }

    /// Steps over a number or a word.
    fn scalar(&mut self) {
        while self
            .peek()
            .is_some_and(|byte| !is_space(byte) && !matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b'{' | b'['))
        {
            self.at += 1;
        }
    }
}
