//! `application/x-www-form-urlencoded`, read without loss: names and values are bytes.

/// A field: its name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// The fields of a form, in their order. A field without `=` is no field: what is signed of a form does not tell where a
/// name ends, so the form has to.
pub fn fields(body: &[u8]) -> Result<Vec<Field>, &'static str> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').ok_or("a field of the form has no value")?;
            Ok((decoded(&pair[..at])?, decoded(&pair[at + 1..])?))
        })
        .collect()
}

fn decoded(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => return Err("the form is encoded wrongly"),
            },
            byte => *byte,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_to_the_byte() {
        let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let read = fields(b"a=1&b+c=%2b%FF&&d==x&e=").unwrap();
        assert_eq!(read, [pair(b"a", b"1"), pair(b"b c", b"+\xff"), pair(b"d", b"=x"), pair(b"e", b"")]);
        assert_eq!(fields(b""), Ok(Vec::new()));
        for bad in [&b"a"[..], b"a=1&b", b"a=%", b"a=%1", b"a=%zz", b"a=%+1"] {
            assert!(fields(bad).is_err(), "{bad:?}");
        }
    }
}
