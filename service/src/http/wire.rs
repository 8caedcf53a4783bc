//! Writes the protobuf wire format: the few primitives that turn a table and a value into bytes.

/// Writes a varint.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field that is a varint: an integer, a bool or an enum. Negative numbers come sign-extended.
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// Writes a field that is a double.
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a field that is a string or bytes.
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Begins a field that is a message, whose length is not known yet; [`close`] takes what this returns.
pub fn open(out: &mut Vec<u8>, field: u32) -> usize {
    varint(out, u64::from(field) << 3 | 2);
    out.push(0);
    out.len()
}

/// Ends the field begun by [`open`]. A message of 128 bytes or more moves up to make room for its length.
pub fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, length as u64);
    out.splice(start - 1..start, prefix);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_gets_its_length() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let mut out = vec![7];
            let start = open(&mut out, 3);
            out.extend(std::iter::repeat_n(9u8, length));
            close(&mut out, start);
            let (field, value, rest) = upbridge_proto::validate::next_field(&out[1..]).expect("a field");
            let upbridge_proto::validate::Wire::Bytes(bytes) = value else { panic!("no bytes") };
            assert_eq!((field, bytes.len(), rest.len()), (3, length, 0));
        }
    }
}
