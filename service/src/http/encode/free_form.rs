//! Free-form JSON: `google.protobuf.Struct`, `Value` and `ListValue`, printed as what they stand for.
//!
//! Keys come in the order of the wire and are never respelled: they are not names of the contract.

use upbridge_proto::validate::{Wire, next_field};

use super::{Corrupt, Printer, key_and_value};

impl<'a> Printer<'a> {
    pub(super) fn free_object(&mut self, mut bytes: &'a [u8]) -> Result<(), Corrupt> {
        self.out.push(b'{');
        let begin = self.out.len();
        while !bytes.is_empty() {
            let (_, value, rest) = next_field(bytes)?;
            bytes = rest;
            self.comma(begin);
            let (key, value) = key_and_value(value)?;
            self.text(key)?;
            self.out.push(b':');
            let Wire::Bytes(value) = value.unwrap_or(Wire::Bytes(&[])) else { return Err(wrong_free_form()) };
            self.free_value(value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    pub(super) fn free_list(&mut self, mut bytes: &'a [u8]) -> Result<(), Corrupt> {
        self.out.push(b'[');
        let begin = self.out.len();
        while !bytes.is_empty() {
            let (_, value, rest) = next_field(bytes)?;
            bytes = rest;
            self.comma(begin);
            let Wire::Bytes(value) = value else { return Err(wrong_free_form()) };
            self.free_value(value)?;
        }
        self.out.push(b']');
        Ok(())
    }

    pub(super) fn free_value(&mut self, mut bytes: &'a [u8]) -> Result<(), Corrupt> {
        let mut last = None;
        while !bytes.is_empty() {
            let (number, value, rest) = next_field(bytes)?;
            bytes = rest;
            last = Some((number, value));
        }
        match last {
            None | Some((1, _)) => self.out.extend_from_slice(b"null"),
            Some((2, Wire::Fixed64(bits))) => self.double(f64::from_bits(bits)),
            Some((3, Wire::Bytes(text))) => self.text(text)?,
            Some((4, Wire::Varint(value))) => self.json(&(value != 0)),
            Some((5, Wire::Bytes(inside))) => self.free_object(inside)?,
            Some((6, Wire::Bytes(inside))) => self.free_list(inside)?,
            Some(_) => return Err(wrong_free_form()),
        }
        Ok(())
    }
}

fn wrong_free_form() -> Corrupt {
    Corrupt("free-form JSON has the wrong wire type".to_owned())
}
