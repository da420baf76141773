//! Where identifiers come from: each kind has its own stream, none knows for whom it is drawn.

use crate::draw::{Draw, Purpose, Unrepeated};

pub(crate) struct Numbers {
    devices: Draw,
    members: Draw,
    wechat: Draw,
    plates: Unrepeated,
    phones: Unrepeated,
    letters: Draw,
}

/// The first three digits of mobile numbers; 170 is left to the relay numbers.
const PREFIXES: [u32; 24] =
    [130, 131, 132, 133, 135, 136, 137, 138, 139, 150, 151, 152, 157, 158, 159, 176, 177, 180, 181, 182, 186, 187, 188, 189];
const NUMBERS_PER_PREFIX: u32 = 100_000_000;

/// The letters and digits of plates: no I, no O.
const PLATE_ALPHABET: &[u8; 34] = b"0123456789ABCDEFGHJKLMNPQRSTUVWXYZ";
const PLATES_PER_LETTER: u32 = 34_u32.pow(5);
const PLATE_LETTERS: [char; 6] = ['A', 'B', 'C', 'E', 'F', 'G'];
const PROVINCES: [char; 3] = ['浙', '苏', '川'];

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        let mut phones = Draw::new(seed, Purpose::Phones);
        let mut letters = Draw::new(seed, Purpose::Plates);
        Self {
            devices: Draw::new(seed, Purpose::Devices),
            members: Draw::new(seed, Purpose::Members),
            wechat: Draw::new(seed, Purpose::WeChat),
            plates: Unrepeated::new(&mut letters, PLATES_PER_LETTER * PLATE_LETTERS.len() as u32),
            phones: Unrepeated::new(&mut phones, NUMBERS_PER_PREFIX * PREFIXES.len() as u32),
            letters,
        }
    }

    pub(crate) fn phone(&mut self) -> String {
        let value = self.phones.take();
        let prefix = PREFIXES[(value / NUMBERS_PER_PREFIX) as usize];
        format!("{prefix}{:08}", value % NUMBERS_PER_PREFIX)
    }

    pub(crate) fn plate(&mut self, city: usize) -> String {
        let mut value = self.plates.take();
        let mut plate = String::from(PROVINCES[city]);
        plate.push(PLATE_LETTERS[(value / PLATES_PER_LETTER) as usize]);
        for _ in 0..5 {
            plate.push(char::from(PLATE_ALPHABET[value as usize % 34]));
            value /= 34;
        }
        plate
    }

    pub(crate) fn member(&mut self) -> String {
        format!("hm{}", self.members.digits(14))
    }

    pub(crate) fn openid(&mut self) -> String {
        format!("o{}", self.wechat.token(27))
    }

    pub(crate) fn unionid(&mut self) -> String {
        format!("oU{}", self.wechat.token(26))
    }

    /// Under reserved domains: nobody receives mail there.
    pub(crate) fn email(&mut self) -> String {
        let domain = *self.letters.pick(&["mail.example", "post.example", "work.example"]);
        format!("{}@{domain}", self.letters.hexadecimal(12))
    }

    pub(crate) fn anonymous_id(&mut self) -> String {
        self.devices.uuid().to_string()
    }

    pub(crate) fn advertising_id(&mut self) -> String {
        self.devices.hexadecimal(16)
    }
}
