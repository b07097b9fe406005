//! Random texts of the kinds that splitting patterns disagree on; unit tests include this file too.

/// SplitMix64: small, seeded, the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The seed of a random test: `CANDLEWICK_SEED`, or the clock. It is printed, so a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed =
        std::env::var("CANDLEWICK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |elapsed| elapsed.as_nanos() as u64)
        });
    println!("CANDLEWICK_SEED={seed}");
    seed
}

/// Pieces that meet in words' borders: contractions in every case, spaces of every sort, marks, joiners.
pub(crate) const PIECES: &[&str] = &[
    "'s",
    "'S",
    "'\u{17f}",
    "'t",
    "'re",
    "'RE",
    "'Ve",
    "'ll",
    "'lL",
    "'d",
    "'M",
    "'",
    "''",
    "\u{2019}s",
    "'x",
    "'r",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    " \n ",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{3000}",
    "\u{b}",
    "\u{200b}",
    "\u{200d}",
    "\u{feff}",
    "\u{1c}",
    "\u{301}",
    "\u{308}",
    "e\u{301}",
    "\u{5b0}",
    "\u{93e}",
    "\u{94d}",
    "\u{1f469}\u{200d}\u{1f4bb}",
    "\u{fe0f}",
    "\u{1f600}",
    "\u{1f1e9}\u{1f1ea}",
    "hello",
    "World",
    "USA",
    "iPhone",
    "\u{1c5}",
    "\u{2b0}",
    "\u{e9}",
    "\u{c9}t\u{e9}",
    "\u{df}",
    "\u{130}",
    "\u{4e2d}\u{6587}",
    "\u{65e5}",
    "\u{3042}\u{30fc}",
    "\u{d55c}\u{ae00}",
    "\u{1112}\u{1161}\u{11ab}",
    "\u{e01}\u{e33}",
    "\u{627}\u{644}",
    "1",
    "12",
    "123",
    "1234",
    "3.14",
    "\u{0661}\u{0662}",
    "\u{b2}",
    "\u{bd}",
    "\u{2167}",
    "!",
    "?!",
    "//",
    "/",
    "...",
    "<",
    "<|",
    "|>",
    "_",
    "-",
    "(",
    "{}",
    "http://",
    "a.b",
    "#!/",
    "\u{ab}",
    "\u{20ac}",
    "$",
    "+=",
    "\\n",
    "\0",
    "\u{7f}",
    "A",
    "b",
    "Ab",
    "aB",
];

/// What an apostrophe is followed by: contractions in every case, with the letters that fold to theirs.
const CONTRACTIONS: &[&str] =
    &["s", "t", "re", "ve", "m", "ll", "d", "S", "RE", "vE", "Ll", "\u{17f}", "R\u{17f}", "x", "", "r", "l"];

/// White space, commonly repeated.
const SPACES: &[&str] = &[
    " ", " ", " ", " ", "  ", "   ", "\n", "\n", "\r\n", "\r\n", "\n\n", "\t", "\r", "\u{85}", "\u{a0}",
    "\u{3000}", "\u{b}", "\u{2028}",
];

/// A random text of up to `pieces` pieces, its kind chosen at random too.
pub(crate) fn random_text(random: &mut Random, pieces: usize) -> String {
    let kind = random.below(35);
    let count = 1 + random.below(pieces);
    let page = 64 * random.below(0x400);
    let mut text = String::new();
    for _ in 0..count {
        match kind {
            0..8 => text.push_str(random.pick::<&str>(PIECES)),
            // Any code point, mostly of the first planes.
            8..10 => text.push(any_char(random, 0x11_0000)),
            10..13 => text.push(any_char(random, 0x3000)),
            // A piece beside any character.
            13..17 => {
                text.push_str(random.pick::<&str>(PIECES));
                text.push(any_char(random, 0x2_0000));
            }
            // Apostrophes between any characters, with and without space.
            17..21 => {
                text.push(any_char(random, 0x250));
                text.push_str(random.pick::<&str>(&["", "", "", " ", "  ", "\n"]));
                text.push_str(random.pick::<&str>(&["'", "'", "'", "''", "\u{2019}"]));
                text.push_str(random.pick::<&str>(&["", "", "", "", " "]));
                text.push_str(random.pick::<&str>(CONTRACTIONS));
            }
            // Two characters with space left and right of them.
            21..24 => {
                text.push_str(random.pick::<&str>(&["", " ", "  "]));
                text.push(ascii(random));
                text.push(ascii(random));
                text.push_str(random.pick::<&str>(&["", " ", "  ", "\n"]));
            }
            // Runs of white space of every sort, seldom broken.
            24..27 => match random.below(6) {
                0 => text.push_str(random.pick::<&str>(PIECES)),
                _ => text.push_str(random.pick::<&str>(SPACES)),
            },
            // Any characters with a space between.
            27 => text.extend([' ', any_char(random, 0x11_0000)]),
            // Long runs, past every border of 16, 64 and 256 bytes.
            28 => text.push_str(&random.pick::<&str>(PIECES).repeat(1 + random.below(300))),
            // A script: characters that differ in their last six bits, now and then in the one before, and some of ASCII.
            29..32 => match random.below(6) {
                0 => text.push(ascii(random)),
                at => text.extend(char::from_u32((page + random.below(64) + 64 * (at / 5)) as u32)),
            },
            _ => text.push(ascii(random)),
        }
    }
    text
}

fn ascii(random: &mut Random) -> char {
    (b' ' + random.below(95) as u8) as char
}

fn any_char(random: &mut Random, below: usize) -> char {
    loop {
        if let Some(character) = char::from_u32(random.below(below) as u32) {
            return character;
        }
    }
}
