//! Protocol buffers as bytes: tags, numbers, and what is preceded by its length.

use super::Error;

pub(super) enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order they were written.
pub(super) struct Parts<'a>(pub &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            // What follows an error means nothing.
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::WireType)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut self.0)?),
            1 => Wire::Fixed(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Truncated)?)),
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).map_err(|_| Error::Truncated)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Error::Truncated)?).into()),
            _ => return Err(Error::WireType),
        };
        Ok((number, wire))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Error::Truncated)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::WireType)
}

const VARINT: u8 = 0;
const FIXED: u8 = 1;
const BYTES: u8 = 2;

/// How a message is written: field by field.
pub(super) trait Write {
    fn varint(&mut self, number: u64);
    fn tag(&mut self, field: u32, wire: u8);
    fn number(&mut self, field: u32, number: u64);
    fn fixed(&mut self, field: u32, bits: u64);
    fn bytes(&mut self, field: u32, bytes: &[u8]);
    /// Whatever `write` appends becomes one field; its length is written in front of it afterwards.
    fn nested<T>(&mut self, field: u32, write: impl FnOnce(&mut Self) -> T) -> T;
}

impl Write for Vec<u8> {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn tag(&mut self, field: u32, wire: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire));
    }

    fn number(&mut self, field: u32, number: u64) {
        self.tag(field, VARINT);
        self.varint(number);
    }

    fn fixed(&mut self, field: u32, bits: u64) {
        self.tag(field, FIXED);
        self.extend_from_slice(&bits.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }

    fn nested<T>(&mut self, field: u32, write: impl FnOnce(&mut Self) -> T) -> T {
        self.tag(field, BYTES);
        let start = self.len();
        // Most are shorter than 128 bytes: one byte for the length.
        self.push(0);
        let done = write(self);
        let len = self.len() - start - 1;
        match u8::try_from(len) {
            Ok(short) if short < 0x80 => self[start] = short,
            _ => {
                let mut prefix = Vec::with_capacity(10);
                prefix.varint(len as u64);
                self.splice(start..=start, prefix);
            }
        }
        done
    }
}
