//! The compact form of what is kept a row an anchor or a customer: variable-length integers and texts, with a version first.

use super::value::{Number, Value};

/// Writes.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(version: u8) -> Writer {
        Writer { bytes: vec![version] }
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn size(&mut self, value: usize) {
        self.wide(value as u128);
    }

    fn wide(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn int(&mut self, value: i64) {
        self.big(i128::from(value));
    }

    pub(crate) fn big(&mut self, value: i128) {
        self.wide(((value << 1) ^ (value >> 127)) as u128);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.size(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Number(number) => {
                // Whole numbers, which are nearly all, take a tag of their own and no trailing zeros.
                match number.as_whole() {
                    Some(whole) => {
                        self.size(0);
                        self.int(whole);
                    }
                    None => {
                        self.size(1);
                        self.big(number.billionths());
                    }
                }
            }
            Value::Text(text) => {
                self.size(2);
                self.text(text);
            }
            Value::Flag(flag) => self.size(if *flag { 4 } else { 3 }),
            Value::Moment(ms) => {
                self.size(5);
                self.int(*ms);
            }
        }
    }
}

/// Reads; every method answers `None` where the bytes are not what was written.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(version: u8, bytes: &'a [u8]) -> Option<Reader<'a>> {
        let (first, bytes) = bytes.split_first()?;
        (*first == version).then_some(Reader { bytes })
    }

    pub(crate) fn size(&mut self) -> Option<usize> {
        usize::try_from(self.wide()?).ok()
    }

    fn wide(&mut self) -> Option<u128> {
        let mut value = 0u128;
        for place in 0..19 {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u128::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn int(&mut self) -> Option<i64> {
        i64::try_from(self.big()?).ok()
    }

    pub(crate) fn big(&mut self) -> Option<i128> {
        let wide = self.wide()?;
        Some((wide >> 1) as i128 ^ -((wide & 1) as i128))
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.size()?;
        let text = self.bytes.get(..length)?;
        self.bytes = &self.bytes[length..];
        std::str::from_utf8(text).ok()
    }

    pub(crate) fn value(&mut self) -> Option<Value> {
        Some(match self.size()? {
            0 => Value::whole(self.int()?),
            1 => Value::Number(Number::from_billionths(self.big()?)),
            2 => Value::text(self.text()?),
            3 => Value::Flag(false),
            4 => Value::Flag(true),
            5 => Value::Moment(self.int()?),
            _ => return None,
        })
    }

    /// A list whose length was written first; a length beyond what is left is refused before anything is reserved.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.size()?;
        if length > self.bytes.len() {
            return None;
        }
        (0..length).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_refuses_what_is_cut_off() {
        let values = [
            Value::whole(0),
            Value::whole(i64::MIN),
            Value::whole(i64::MAX),
            Value::Number(Number::from_billionths(i128::MIN / 4)),
            Value::text("深圳"),
            Value::Flag(true),
            Value::Moment(-1),
        ];
        let mut writer = Writer::new(1);
        writer.size(values.len());
        values.iter().for_each(|value| writer.value(value));
        let bytes = writer.done();
        let read = Reader::new(1, &bytes).and_then(|mut reader| reader.list(Reader::value));
        assert_eq!(read.as_deref(), Some(&values[..]));
        for length in 0..bytes.len() {
            let cut = Reader::new(1, &bytes[..length]).and_then(|mut reader| reader.list(Reader::value));
            assert_eq!(cut, None, "{length}");
        }
    }
}
